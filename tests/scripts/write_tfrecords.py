"""Write TFRecord files from a JSON description; runs where TensorFlow is installed.

{"path": {"compression": "", "records": [{"name": ["bytes_list", [base64, …]]} or base64, …]}}
"""

import base64
import json
import sys

import tensorflow as tf

for path, content in json.load(sys.stdin).items():
    with tf.io.TFRecordWriter(path, content["compression"]) as writer:
        for record in content["records"]:
            if isinstance(record, str):
                writer.write(base64.b64decode(record))
                continue
            example = tf.train.Example()
            for name, (kind, values) in record.items():
                if kind == "bytes_list":
                    values = [base64.b64decode(value) for value in values]
                getattr(example.features.feature[name], kind).value.extend(values)
            writer.write(example.SerializeToString())

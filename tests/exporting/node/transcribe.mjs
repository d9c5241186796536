// Transcribe float32 files of 16 kHz samples with Transformers.js, and print what it returns as JSON.
//
//     node transcribe.mjs FOLDER_WITH_NODE_MODULES REQUEST.json
//
// A request is {"model": folder, "dtype": "fp32", "audio": [files], "options": {...}}.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

const [installed, requestFile] = process.argv.slice(2);
const { env, pipeline } = createRequire(path.join(installed, 'package.json'))('@huggingface/transformers');
const request = JSON.parse(readFileSync(requestFile, 'utf8'));

env.allowRemoteModels = false;
env.localModelPath = path.dirname(request.model);
const transcriber = await pipeline('automatic-speech-recognition', path.basename(request.model), {
    dtype: request.dtype,
    device: 'cpu',
    session_options: { intraOpNumThreads: 1 }, // tests run beside each other
});
const outputs = [];
for (const file of request.audio) {
    const bytes = readFileSync(file);
    const samples = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
    outputs.push(await transcriber(samples, request.options));
}
await transcriber.dispose();
process.stdout.write(JSON.stringify(outputs));

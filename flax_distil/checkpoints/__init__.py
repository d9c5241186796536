"""From checkpoint files to parameter trees and back: loading, students, exports, training checkpoints."""

// Runs ONNX files in onnxruntime: node tests/onnx/run.js CASE... For each case there are CASE.onnx,
// CASE.in1.npy, ... (an input each) and CASE.out1.npy, ... (what is expected of each output).
// Prints a line for each, "CASE ERROR SIZE": the largest difference of all outputs and the largest
// value expected; or "CASE failed: why". Needs npm's onnxruntime-node, in the folder that
// RESIN_ONNXRUNTIME names or in the working directory.
const fs = require('fs');
const folders = [process.env.RESIN_ONNXRUNTIME || process.cwd()];
const ort = require(require.resolve('onnxruntime-node', {paths: folders}));

const ARRAYS = {f4: [Float32Array, 'float32'], u1: [Uint8Array, 'uint8']};

// A .npy file, version 1, little-endian, C order.
function readNpy(path) {
  const bytes = fs.readFileSync(path), start = 10 + bytes.readUInt16LE(8);
  const header = bytes.toString('latin1', 10, start);
  const [array, type] = ARRAYS[/'descr': '[<|](\w+)'/.exec(header)[1]];
  const shape = /'shape': \(([^)]*)\)/.exec(header)[1].split(',').filter(s => s.trim()).map(Number);
  const first = bytes.byteOffset + start, last = bytes.byteOffset + bytes.length;
  const data = new array(bytes.buffer.slice(first, last));
  return new ort.Tensor(type, data, shape);
}

function readAll(prefix, names) {
  return names.map((_, i) => readNpy(`${prefix}${i + 1}.npy`));
}

async function run(name) {
  const options = {intraOpNumThreads: 1, interOpNumThreads: 1, logSeverityLevel: 3};
  const session = await ort.InferenceSession.create(name + '.onnx', options);
  const feed = {};
  readAll(name + '.in', session.inputNames).forEach((x, i) => { feed[session.inputNames[i]] = x; });
  const results = await session.run(feed);
  let error = 0, size = 0;
  readAll(name + '.out', session.outputNames).forEach((expected, i) => {
    const result = results[session.outputNames[i]];
    if (String(result.dims) !== String(expected.dims))
      throw new Error(`output ${session.outputNames[i]} is ${result.dims}, not ${expected.dims}`);
    for (let k = 0; k < expected.data.length; k++) {
      const difference = Math.abs(result.data[k] - expected.data[k]);
      if (!(difference <= error)) error = difference; // a NaN stays
      size = Math.max(size, Math.abs(expected.data[k]));
    }
  });
  await session.release();
  return `${error} ${size}`;
}

(async () => {
  for (const name of process.argv.slice(2)) {
    const line = await run(name).catch(problem => 'failed: ' + problem.message);
    console.log(name, line.replace(/\n/g, ' '));
  }
})();

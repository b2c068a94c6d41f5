// onnxruntime_bench.js: times inference of an ONNX file in onnxruntime and prints a line of JSON.
//
//     node scripts/peers/onnxruntime_bench.js FOLDER FILE.onnx BATCH SIDE THREADS SECONDS
//
// FOLDER is where `npm install onnxruntime-node` was run; FILE.onnx is what model:export_onnx
// wrote. Like scripts/bench.lua: two runs to warm up, then the median of all in the given time.
"use strict";
const path = require("path");

function median(sorted) {
  return sorted[Math.floor(sorted.length / 2)];
}

async function secondsOfRuns(run, seconds) {
  await run();
  await run();
  const taken = [];
  const start = performance.now();
  while (taken.length < 3 || performance.now() - start < seconds * 1000) {
    const before = performance.now();
    await run();
    taken.push((performance.now() - before) / 1000);
  }
  return taken.sort((a, b) => a - b);
}

async function main() {
  const [folder, file, batch, side, threads, seconds] = process.argv.slice(2);
  const runtime = require(require.resolve("onnxruntime-node", { paths: [path.resolve(folder)] }));
  const session = await runtime.InferenceSession.create(file, {
    intraOpNumThreads: Number(threads),
    interOpNumThreads: 1,
    graphOptimizationLevel: "all",
  });
  const sizes = [Number(batch), Number(side), Number(side), 3];
  const data = new Float32Array(sizes.reduce((a, b) => a * b, 1));
  for (let i = 0; i < data.length; i++) data[i] = Math.sin(i);
  const feeds = { [session.inputNames[0]]: new runtime.Tensor("float32", data, sizes) };
  const taken = await secondsOfRuns(() => session.run(feeds), Number(seconds));
  console.log(
    JSON.stringify({
      engine: "onnxruntime",
      batch: Number(batch),
      threads: Number(threads),
      median_ms: Number((median(taken) * 1e3).toFixed(2)),
      min_ms: Number((taken[0] * 1e3).toFixed(2)),
      steps: taken.length,
      peak_rss_mb: Math.round(process.resourceUsage().maxRSS / 1024),
    })
  );
}

main().catch((error) => {
  console.error(String(error.message || error));
  process.exit(1);
});

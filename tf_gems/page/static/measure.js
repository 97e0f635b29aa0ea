// Runs TFLite files by LiteRT.js: checks them one by one, times them in turns.

import {loadAndCompile, loadLiteRt, Tensor} from '@litertjs/core';

const OPTIONS = {accelerator: 'wasm', cpuOptions: {numThreads: 1}};

const LEAST_MILLISECONDS = 2;

let started = null;

/** Loads LiteRT.js once. */
export function start() {
  started ??= loadLiteRt(
      new URL('litert/@litertjs/core/wasm/', document.baseURI).href);
  return started;
}

/** Fetches little-endian float32 values. */
export async function floats(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${url}: ${answer.status}`);
  return new Float32Array(await answer.arrayBuffer());
}

/** A file that is ready to run on single examples. */
export class Network {
  static async open(url, shape) {
    await start();
    const answer = await fetch(url);
    if (!answer.ok) throw new Error(`${url}: ${answer.status}`);
    const bytes = new Uint8Array(await answer.arrayBuffer());
    // LiteRT.js goes on after some errors that it only writes to the console.
    const errors = [];
    const original = console.error;
    console.error = (...words) => {
      const line = words.join(' ');
      if (/^ERROR|failed/i.test(line)) errors.push(line);
      original(...words);
    };
    let model;
    try {
      model = await loadAndCompile(bytes, OPTIONS);
    } finally {
      console.error = original;
    }
    if (errors.length) {
      model.delete();
      throw new Error(`LiteRT.js cannot prepare this file: ${errors[0]}`);
    }
    return new Network(model, shape);
  }

  constructor(model, shape) {
    this.model = model;
    this.shape = shape;
  }

  /** Returns the outputs for one example and the milliseconds it took. */
  async run(values) {
    const input = new Tensor(values, this.shape);
    const begin = performance.now();
    const outputs = await this.model.run(input);
    const milliseconds = performance.now() - begin;
    const output = Float32Array.from(await outputs[0].data());
    outputs.forEach((tensor) => tensor.delete());
    input.delete();
    return {output, milliseconds};
  }

  close() {
    this.model.delete();
  }
}

/** The largest difference, as a fraction of the largest expected value. */
export function relativeError(found, expected) {
  if (found.length !== expected.length) return Infinity;
  let difference = 0, largest = 0;
  for (let i = 0; i < expected.length; ++i) {
    if (!Number.isFinite(found[i])) return Infinity;
    difference = Math.max(difference, Math.abs(found[i] - expected[i]));
    largest = Math.max(largest, Math.abs(expected[i]));
  }
  return largest ? difference / largest : (difference ? Infinity : 0);
}

/**
 * Compares a file with what Keras computed, example by example. To be called
 * in a page that runs nothing else: what a file leaves unwritten can be the
 * right answer of another one.
 */
export async function check(url, shape, inputs, outputs) {
  const network = await Network.open(url, shape);
  const size = shape.reduce((product, length) => product * length, 1);
  const count = inputs.length / size;
  const length = outputs.length / count;
  let worst = 0;
  for (let i = 0; i < count; ++i) {
    const {output} =
        await network.run(inputs.slice(i * size, (i + 1) * size));
    const expected = outputs.subarray(i * length, (i + 1) * length);
    worst = Math.max(worst, relativeError(output, expected));
  }
  network.close();
  return worst;
}

/**
 * Times two open networks in turns; returns lists of milliseconds. Those that
 * the clock can hardly see are run several times for each.
 */
export async function inTurns(dense, sparse, values, pairs, told = () => {}) {
  const times = {dense: [], sparse: []};
  let fastest = Infinity;
  for (let i = 0; i < 8; ++i) {  // to warm up
    fastest = Math.min(fastest, (await dense.run(values)).milliseconds);
    await sparse.run(values);
  }
  const repeats =
      Math.min(64, Math.ceil(LEAST_MILLISECONDS / Math.max(fastest, .01)));
  for (let i = 0; i < pairs; ++i) {
    const order = [['dense', dense], ['sparse', sparse]];
    for (const [name, network] of i % 2 ? order : order.reverse()) {
      let sum = 0;
      for (let k = 0; k < repeats; ++k) {
        sum += (await network.run(values)).milliseconds;
      }
      times[name].push(sum / repeats);
    }
    await told((i + 1) / pairs);
  }
  return times;
}

/** The middle of a list of numbers. */
export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle]
                           : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** The median of the ratios of times that were measured in pairs. */
export function speedUp(times) {
  return median(times.dense.map((time, i) => time / times.sparse[i]));
}

// The page: both networks on what is drawn or dropped, and the benchmark.
//
// It reads from run/ what `tf_gems.page.write_page` wrote: page.json,
// dense.tflite, sparse.tflite, inputs.bin and outputs.bin.

import {check, floats, inTurns, median, Network, relativeError, speedUp}
    from './measure.js';

const TOLERANCE = 1e-4;
const PAIRS = 61;
const element = (id) => document.getElementById(id);
const canvas = element('canvas');
const pen = canvas.getContext('2d', {willReadFrequently: true});

let page, inputs, outputs, dense, sparse;
let current = null;  // what the networks read now
let busy = Promise.resolve();

function tell(message) {
  element('status').textContent = message;
}

function fail(error) {
  element('error').hidden = false;
  element('error').textContent = error.message ?? String(error);
  tell('This cannot be shown.');
}

const kilobytes = (bytes) => `${(bytes / 1000).toFixed(1)} kB`;
const milliseconds = (time) => `${time.toFixed(time < 1 ? 3 : 2)} ms`;

async function open() {
  const answer = await fetch('run/page.json');
  if (!answer.ok) {
    throw new Error(
        'This directory holds no page.json. A recipe writes it when its run ' +
        'ends; `tf_gems.page.write_page` writes it for any network.');
  }
  page = await answer.json();
  element('name').textContent = page.name;
  document.title = page.name;
  element('summary').textContent =
      `${(100 * page.sparsity).toFixed(1)} % of the weights of the sparse ` +
      `network are zero. Its file has ${kilobytes(page.bytes.sparse)}, that ` +
      `of its dense twin ${kilobytes(page.bytes.dense)}.`;
  showLayers();
  showHistory();
  showPictures();
  inputs = await floats('run/inputs.bin');
  outputs = await floats('run/outputs.bin');
  // The sparse file first: what it leaves unwritten cannot be the right
  // answer of the dense one yet.
  for (const name of ['sparse', 'dense']) {
    tell(`Comparing the ${name} file with Keras…`);
    let error;
    try {
      error =
          await check(`run/${name}.tflite`, page.shape, inputs, outputs);
    } catch (cause) {
      throw new Error(`The ${name} file cannot be run. ${cause.message}`);
    }
    if (!(error <= TOLERANCE)) {
      throw new Error(
          `The ${name} file does not compute what Keras does: its outputs ` +
          `differ by ${error.toExponential(1)} of the largest. Its times ` +
          'would mean nothing, so none are shown.');
    }
  }
  sparse = await Network.open('run/sparse.tflite', page.shape);
  dense = await Network.open('run/dense.tflite', page.shape);
  for (const name of ['dense', 'sparse']) {
    element(`${name}-bytes`).textContent = kilobytes(page.bytes[name]);
  }
  element('main').hidden = false;
  fillExamples();
  clear();
  await showExample(0);
  tell('Both files compute what Keras does.');
}

// ---- Answers

function softmax(values) {
  const largest = Math.max(...values);
  const powers = Array.from(values, (v) => Math.exp(v - largest));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((p) => p / sum);
}

/** Runs both networks on `current`, after whatever runs already. */
function answer() {
  const values = current;
  busy = busy.then(async () => {
    if (values !== current) return;  // drawn on meanwhile
    const found = {};
    for (const [name, network] of [['dense', dense], ['sparse', sparse]]) {
      await network.run(values);  // to warm up
      found[name] = await network.run(values);
      const {output, milliseconds: time} = found[name];
      const sure = page.logits ? softmax(output) : Array.from(output);
      const best = sure.indexOf(Math.max(...sure));
      element(`${name}-answer`).textContent = page.classes[best] ?? best;
      element(`${name}-sure`).textContent =
          `${(100 * sure[best]).toFixed(1)} %`;
      element(`${name}-time`).textContent = milliseconds(time);
    }
    const error = relativeError(found.sparse.output, found.dense.output);
    const same = error <= TOLERANCE ?
        `Same outputs (they differ by ${error.toExponential(1)}).` :
        `The outputs differ by ${error.toExponential(1)}!`;
    element('verdict').textContent = same;
  }).catch(fail);
  return busy;
}

async function benchmark() {
  element('run').disabled = true;
  element('result').textContent = '';
  busy = busy.then(async () => {
    const values = current;
    const expected = (await dense.run(values)).output;
    const times = await inTurns(dense, sparse, values, PAIRS, async (part) => {
      element('progress').value = part;
      await new Promise((done) => setTimeout(done));  // let it be drawn
    });
    const {output} = await sparse.run(values);
    const error = relativeError(output, expected);
    if (!(error <= TOLERANCE)) {
      throw new Error('The outputs of the two files differ.');
    }
    element('result').textContent =
        `${speedUp(times).toFixed(2)} times as fast: ` +
        `dense ${milliseconds(median(times.dense))}, ` +
        `sparse ${milliseconds(median(times.sparse))} ` +
        `(medians of ${PAIRS}), outputs the same.`;
  }).catch(fail);
  await busy;
  element('run').disabled = false;
}

// ---- What the networks read

const side = () => page.shape[1];
const depth = () => page.shape[3] ?? 1;

/** Reads the canvas at the size of the network's images, by their means. */
function readCanvas() {
  const [height, width] = [side(), page.shape[2]];
  const each = Math.max(1, Math.round(canvas.height / height));
  const large = new OffscreenCanvas(width * each, height * each);
  const context = large.getContext('2d', {willReadFrequently: true});
  context.drawImage(canvas, 0, 0, large.width, large.height);
  const pixels = context.getImageData(0, 0, large.width, large.height).data;
  const colours = new Float32Array(width * height * 3);
  for (let i = 0; i < large.width * large.height; ++i) {
    const x = Math.floor(i % large.width / each);
    const y = Math.floor(i / large.width / each);
    for (let k = 0; k < 3; ++k) {
      colours[3 * (y * width + x) + k] += pixels[4 * i + k];
    }
  }
  const white = 255 * each * each;
  const values = new Float32Array(width * height * depth());
  for (let i = 0; i < values.length; ++i) {
    const channel = i % depth();
    const first = 3 * Math.floor(i / depth());
    const [red, green, blue] = colours.subarray(first, first + 3);
    const value =
        depth() > 1 ? colours[first + channel] : (red + green + blue) / 3;
    values[i] = (value / white - page.mean[channel]) / page.deviation[channel];
  }
  current = values;
  return answer();
}

function clear() {
  pen.fillStyle = '#000';
  pen.fillRect(0, 0, canvas.width, canvas.height);
}

function fillExamples() {
  const count = inputs.length / page.shape.reduce((a, b) => a * b);
  for (let i = 0; i < count; ++i) {
    const label = page.labels?.[i];
    const name = label == null ? '' : `: ${page.classes[label] ?? label}`;
    element('examples').add(new Option(`${i + 1}${name}`, i));
  }
}

async function showExample(index) {
  const size = page.shape.reduce((a, b) => a * b);
  current = inputs.slice(index * size, (index + 1) * size);
  const image = new ImageData(page.shape[2], side());
  for (let i = 0; i < image.data.length; ++i) {
    const channel = Math.min(i % 4, depth() - 1);
    const value = current[Math.floor(i / 4) * depth() + channel];
    image.data[i] = i % 4 === 3 ?
        255 :
        255 * (value * page.deviation[channel] + page.mean[channel]);
  }
  const bitmap = await createImageBitmap(image);
  pen.imageSmoothingEnabled = false;
  pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  await answer();
}

async function showFile(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    element('verdict').textContent = `${file.name} is no image.`;
    return;
  }
  clear();
  const scale =
      Math.max(canvas.width / bitmap.width, canvas.height / bitmap.height);
  const size = [bitmap.width * scale, bitmap.height * scale];
  pen.imageSmoothingEnabled = true;
  pen.drawImage(
      bitmap, (canvas.width - size[0]) / 2, (canvas.height - size[1]) / 2,
      ...size);
  await readCanvas();
}

// ---- Drawing, by pointer and by keys

let last = null;
const cursor = {x: canvas.width / 2, y: canvas.height / 2};

function stroke(from, to) {
  pen.strokeStyle = '#fff';
  pen.lineWidth = canvas.width / 14;
  pen.lineCap = pen.lineJoin = 'round';
  pen.beginPath();
  pen.moveTo(from.x, from.y);
  pen.lineTo(to.x, to.y + .01);
  pen.stroke();
}

function place(event) {
  const box = canvas.getBoundingClientRect();
  return {
    x: (event.clientX - box.left) * canvas.width / box.width,
    y: (event.clientY - box.top) * canvas.height / box.height,
  };
}

canvas.addEventListener('pointerdown', (event) => {
  canvas.setPointerCapture(event.pointerId);
  last = place(event);
  stroke(last, last);
});
canvas.addEventListener('pointermove', (event) => {
  if (!last) return;
  const next = place(event);
  stroke(last, next);
  last = next;
});
for (const kind of ['pointerup', 'pointercancel']) {
  canvas.addEventListener(kind, () => {
    if (last) readCanvas();
    last = null;
  });
}
let drawing = false;
canvas.addEventListener('keydown', (event) => {
  const step = canvas.width / 28;
  const moves = {
    ArrowLeft: [-step, 0], ArrowRight: [step, 0],
    ArrowUp: [0, -step], ArrowDown: [0, step],
  };
  if (event.key in moves) {
    const from = {...cursor};
    const [x, y] = moves[event.key];
    cursor.x = Math.min(canvas.width, Math.max(0, cursor.x + x));
    cursor.y = Math.min(canvas.height, Math.max(0, cursor.y + y));
    if (drawing) stroke(from, cursor);
  } else if (event.key === ' ') {
    drawing = !drawing;
    if (drawing) stroke(cursor, cursor);
    element('verdict').textContent = drawing ? 'Pen down.' : 'Pen up.';
    if (!drawing) readCanvas();
  } else if (event.key === 'Delete') {
    clear();
    readCanvas();
  } else {
    return;
  }
  event.preventDefault();
});

element('clear').addEventListener('click', () => {
  clear();
  readCanvas();
});
element('file').addEventListener('change', (event) => {
  if (event.target.files[0]) showFile(event.target.files[0]);
});
element('examples').addEventListener('change', (event) => {
  showExample(Number(event.target.value));
});
element('run').addEventListener('click', benchmark);
document.addEventListener('dragover', (event) => event.preventDefault());
document.addEventListener('drop', (event) => {
  event.preventDefault();
  if (event.dataTransfer.files[0]) showFile(event.dataTransfer.files[0]);
});

// ---- The run

function showLayers() {
  for (const tensor of page.tensors) {
    const size = tensor.shape.reduce((a, b) => a * b, 1);
    const kept = 1 - tensor.zeros / size;
    const row = element('layers').insertRow();
    const head = document.createElement('th');
    head.scope = 'row';
    head.textContent = tensor.name;
    row.append(head);
    row.insertCell().textContent = tensor.shape.join(' × ');
    const cell = row.insertCell();
    cell.textContent = `${(100 * kept).toFixed(2)} %`;
    const bar = document.createElement('span');
    bar.className = 'bar';
    bar.style.width = `${100 * kept}%`;
    cell.append(bar);
    row.insertCell().textContent = tensor.encoding;
    row.insertCell().textContent = tensor.bytes.toLocaleString('en');
  }
}

function showHistory() {
  for (const [name, all] of Object.entries(page.history ?? {})) {
    const values = all.filter((value) => value !== null); // no number
    if (values.length < 2) continue;
    element('history').hidden = false;
    const low = Math.min(...values), high = Math.max(...values);
    const span = high - low || 1;
    const points = values.map((value, i) => {
      const x = 100 * i / (values.length - 1);
      return `${x},${38 - 36 * (value - low) / span}`;
    });
    const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
    svg.setAttribute('viewBox', '0 0 100 40');
    svg.setAttribute('preserveAspectRatio', 'none');
    svg.setAttribute('role', 'img');
    const line =
        document.createElementNS('http://www.w3.org/2000/svg', 'polyline');
    line.setAttribute('points', points.join(' '));
    svg.append(line);
    const text = `${name}: ${values[0].toPrecision(4)} in the first epoch, ` +
        `${values.at(-1).toPrecision(4)} in the last of ${values.length}`;
    svg.setAttribute('aria-label', text);
    const figure = document.createElement('figure');
    const caption = document.createElement('figcaption');
    caption.textContent = text;
    figure.append(caption, svg);
    element('curves').append(figure);
  }
}

function showPictures() {
  for (const picture of page.pictures ?? []) {
    element('masks').hidden = false;
    const drawn = document.createElement('canvas');
    drawn.width = picture.width;
    drawn.height = picture.height;
    drawn.setAttribute('role', 'img');
    drawn.setAttribute('aria-label', picture.caption);
    const image = new ImageData(picture.width, picture.height);
    const bytes = atob(picture.pixels);
    for (let i = 0; i < bytes.length; ++i) {
      image.data.fill(bytes.charCodeAt(i), 4 * i, 4 * i + 3);
      image.data[4 * i + 3] = 255;
    }
    drawn.getContext('2d').putImageData(image, 0, 0);
    const figure = document.createElement('figure');
    const caption = document.createElement('figcaption');
    caption.textContent = picture.caption;
    figure.append(drawn, caption);
    element('pictures').append(figure);
  }
}

open().catch(fail);

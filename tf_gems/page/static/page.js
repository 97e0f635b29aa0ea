// The page: both networks on what is drawn or dropped, and the benchmark.
//
// It reads from run/ what `tf_gems.page.write_page` wrote: page.json,
// dense.tflite, sparse.tflite, inputs.bin and outputs.bin.

import {check, floats, inTurns, median, Network, relativeError, speedUp}
    from './measure.js';

const TOLERANCE = 1e-4;
const PAIRS = 61;
const ANSWER_PAIRS = 9;  // of an answer, after runs to warm up
const element = (id) => document.getElementById(id);
const canvas = element('canvas');
const pen = canvas.getContext('2d', {willReadFrequently: true});

let page, inputs, outputs, dense, sparse;
let current = null;  // what the networks read now
let label = null;  // the class of `current`, if it is a test example
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
  showAccuracy();
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
  const expected = label;
  busy = busy.then(async () => {
    if (values !== current) return;  // drawn on meanwhile
    const outputs = {};
    for (const [name, network] of [['dense', dense], ['sparse', sparse]]) {
      const {output} = await network.run(values);
      outputs[name] = output;
      const sure = page.logits ? softmax(output) : Array.from(output);
      const best = sure.indexOf(Math.max(...sure));
      element(`${name}-answer`).textContent = page.classes[best] ?? best;
      element(`${name}-sure`).textContent =
          `${(100 * sure[best]).toFixed(1)} %`;
      mark(element(`${name}-right`), expected, best);
    }
    const error = relativeError(outputs.sparse, outputs.dense);
    const same = error <= TOLERANCE ?
        `Same outputs (they differ by ${error.toExponential(1)}).` :
        `The outputs differ by ${error.toExponential(1)}!`;
    element('verdict').textContent = same;
    const times = await inTurns(dense, sparse, values, ANSWER_PAIRS);
    for (const name of ['dense', 'sparse']) {
      element(`${name}-time`).textContent = milliseconds(median(times[name]));
    }
  }).catch(fail);
  return busy;
}

/** Says beside an answer whether it is right, if that is known. */
function mark(place, expected, best) {
  place.className = 'mark';
  place.textContent = '';
  if (expected == null) return;
  const right = expected === best;
  place.classList.add(right ? 'right' : 'wrong');
  place.textContent = right ?
      '✓ right' :
      `✗ wrong: it is ${page.classes[expected] ?? expected}`;
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
  label = null;
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
  label = page.labels?.[index] ?? null;
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

function showAccuracy() {
  if (page.accuracy == null) return;
  const percent = (value) => `${(100 * value).toFixed(2)} %`;
  const line = element('accuracy');
  line.hidden = false;
  line.textContent = `${percent(page.accuracy)} test accuracy`;
  if (page.dense_accuracy != null) {
    const small = document.createElement('small');
    small.textContent =
        `The unpruned network has ${percent(page.dense_accuracy)}.`;
    line.append(small);
  }
}

const WIDTH = 440, HEIGHT = 230;
const LEFT = 56, RIGHT = 12, TOP = 12, BOTTOM = 40;  // margins of a chart

/** Draws a chart for each quantity, with all stages on one scale. */
function showHistory() {
  const charts = new Map();  // from a quantity to its curves
  for (const [name, all] of Object.entries(page.history ?? {})) {
    const values = all.map((value, i) => [i + 1, value])
        .filter(([, value]) => value !== null);  // no number
    if (values.length < 2) continue;
    const parts = name.split(', ');
    const quantity = parts.pop().replace(/^val_/, '');
    if (!charts.has(quantity)) charts.set(quantity, []);
    const stage = parts.join(', ') ||
        (name.startsWith('val_') ? 'validation' : 'training');
    charts.get(quantity).push({stage, values});
  }
  for (const [quantity, curves] of charts) {
    element('history').hidden = false;
    element('curves').append(chart(quantity, curves));
  }
}

function chart(quantity, curves) {
  const all = curves.flatMap(({values}) => values.map(([, value]) => value));
  const scale = makeScale(quantity, Math.min(...all), Math.max(...all));
  const epochs =
      Math.max(...curves.flatMap(({values}) => values.map(([x]) => x)));
  const across = (x) =>
      LEFT + (WIDTH - LEFT - RIGHT) * (x - 1) / Math.max(1, epochs - 1);
  const down = (y) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - scale.place(y));
  const picture = draw('svg', {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img'});
  for (const tick of scale.ticks) {
    picture.append(
        draw('line', {x1: LEFT, x2: WIDTH - RIGHT, y1: down(tick),
          y2: down(tick), class: 'grid'}),
        draw('text', {x: LEFT - 6, y: down(tick) + 4, 'text-anchor': 'end'},
            scale.text(tick)));
  }
  const step = Math.max(1, niceStep(epochs, 6));
  for (let x = step === 1 ? 1 : step; x <= epochs; x += step) {
    picture.append(draw('text',
        {x: across(x), y: HEIGHT - BOTTOM + 16, 'text-anchor': 'middle'}, x));
  }
  picture.append(draw('text', {x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 6,
    'text-anchor': 'middle'}, 'epoch'));
  const legend = document.createElement('ul');
  legend.className = 'legend';
  const said = [];
  curves.forEach(({stage, values}, i) => {
    const style = {
      stroke: page.palette[i % page.palette.length],
      'stroke-dasharray': i % 2 ? '6 3' : 'none',
    };
    const points =
        values.map(([x, y]) => `${across(x).toFixed(1)},${down(y).toFixed(1)}`);
    picture.append(draw('polyline', {points: points.join(' '), ...style}));
    const last = scale.text(values.at(-1)[1], true);
    const mark = draw('svg', {viewBox: '0 0 36 14', 'aria-hidden': true});
    mark.append(draw('polyline', {points: '0,7 36,7', ...style}));
    const item = document.createElement('li');
    item.append(mark, `${stage}: ${last}`);
    legend.append(item);
    said.push(`${stage}: ${scale.text(values[0][1], true)} in the first ` +
        `epoch, ${last} in the last of ${values.length}`);
  });
  picture.setAttribute('aria-label', `${quantity}. ${said.join('. ')}.`);
  const figure = document.createElement('figure');
  const caption = document.createElement('figcaption');
  caption.textContent = quantity + (scale.log ? ' (logarithmic)' : '');
  figure.append(caption, picture, legend);
  return figure;
}

/** A scale for all curves of a chart: where values stand, and its ticks. */
function makeScale(quantity, low, high) {
  const parts = /accuracy|density|sparsity/.test(quantity) &&
      low >= 0 && high <= 1;
  const text = (value, exact) => parts ?
      `${Number((100 * value).toPrecision(exact ? 4 : 3))} %` :
      String(Number(value.toPrecision(exact ? 4 : 3)));
  if (/density/.test(quantity) && low > 0 && high > 10 * low) {
    const [from, to] = [Math.log10(low), Math.log10(high)];
    const ticks = [];
    for (let power = Math.floor(from); power <= to; ++power) {
      for (const digit of [1, 3]) {
        const tick = Number((digit * 10 ** power).toPrecision(6));
        if (tick >= low && tick <= high) ticks.push(tick);
      }
    }
    const place = (value) => (Math.log10(value) - from) / (to - from);
    return {log: true, ticks, text, place};
  }
  const step = niceStep(high - low, 5);
  const from = Math.floor(low / step) * step;
  const to = Math.max(Math.ceil(high / step) * step, from + step);
  const ticks = [];
  for (let i = 0; from + i * step <= to + step / 2; ++i) {
    ticks.push(Number((from + i * step).toPrecision(6)));
  }
  return {ticks, text, place: (value) => (value - from) / (to - from)};
}

/** The distance of about `count` ticks over a span: 1, 2 or 5 times 10^n. */
function niceStep(span, count) {
  const rough = (span || 1) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].find((x) => x * power >= rough) * power;
}

function draw(tag, attributes, text = null) {
  const drawn = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) {
    drawn.setAttribute(name, value);
  }
  if (text !== null) drawn.textContent = text;
  return drawn;
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

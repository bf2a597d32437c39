// Three slices through a map, the threshold chosen on the page.
"use strict";
const Viewer = (() => {
  const $ = (id) => document.getElementById(id);
  const holder = $("viewer-data");
  if (!holder || !Volume.supported()) return null;
  const data = JSON.parse(holder.textContent);
  const [nx, ny, nz] = data.shape;
  const AXES = { x: [1, 2], y: [0, 2], z: [0, 1] }; // horizontal and vertical axis of each plane
  const NAMES = { x: "Sagittal", y: "Coronal", z: "Axial" };
  const byId = Object.fromEntries(data.maps.map((m) => [m.id, m]));
  const cache = {};
  const state = { ...data.start, opacity: 0.9, at: [0, 0, 0] };
  const pass = new Uint8Array(data.voxels);
  const ramps = Object.fromEntries(Object.entries(data.ramps).map(([k, v]) => [k, Volume.colours(v)]));
  let position, under, region, range = { low: 0, high: 1 }, passed = 0;

  const parts = async (id) => (cache[id] ??= Volume.load(byId[id]));
  const ready = {}; // maps that are decompressed
  async function need(id) { ready[id] = await parts(id); }

  const index = (i, j, k) => i + nx * (j + ny * k);
  const toMm = ([i, j, k]) => [data.origin[0] - data.step * i, data.origin[1] + data.step * j, data.origin[2] + data.step * k];
  function fromMm(mm) {
    const raw = [(data.origin[0] - mm[0]) / data.step, (mm[1] - data.origin[1]) / data.step, (mm[2] - data.origin[2]) / data.step];
    return raw.map((v, a) => Math.min(data.shape[a] - 1, Math.max(0, Math.round(v))));
  }
  const signed = (v) => (v < 0 ? "\u2212" : "") + Math.abs(v);
  function write(value) {
    if (value === undefined || Number.isNaN(value)) return "\u2013";
    const size = Math.abs(value);
    const text = size === 0 ? "0" : size >= 1000 ? size.toFixed(0) : size >= 100 ? size.toFixed(1) : size >= 1e-4 ? String(+size.toPrecision(4)) : size.toExponential(1);
    return (value < 0 ? "\u2212" : "") + text;
  }

  // The value that is coloured at a voxel: sign and strength; p counts as -log10 p.
  function coloured(id, v) {
    const value = raw(id, v);
    return byId[id].kind === "p" ? (ready.z[0][v] < 0 ? -1 : 1) * -Math.log10(value) : value;
  }
  const raw = (id, v) => {
    const values = ready[id];
    if (byId[id].kind !== "p") return values[0][v];
    return state.side === "two-sided" ? values[2][v] : ready.z[0][v] < 0 ? values[1][v] : values[0][v];
  };

  function recount() {
    const entry = byId[state.where];
    passed = Volume.passing(entry, ready[state.where], ready.z[0], state.t, state.side, pass);
    const shown = byId[state.show];
    let low = Infinity;
    for (let v = 0; v < pass.length; v++) if (pass[v]) low = Math.min(low, Math.abs(coloured(state.show, v)));
    const high = shown.kind === "p" ? Math.log10(shown.permutations) : shown.max;
    if (!(low < high)) low = shown.id === state.where && shown.kind !== "p" ? Math.min(state.t, high * 0.999) : 0;
    range = { low, high: high || 1 };
  }

  function paint(plane, target) {
    const [h, w] = AXES[plane], fixed = { x: 0, y: 1, z: 2 }[plane];
    const width = data.shape[h], height = data.shape[w];
    const image = new ImageData(width, height), out = image.data;
    const at = [0, 0, 0];
    at[fixed] = state.at[fixed];
    const shown = byId[state.show];
    for (let b = 0; b < height; b++) {
      for (let a = 0; a < width; a++) {
        at[h] = h === 0 ? width - 1 - a : a; // x falls with the index: left is left
        at[w] = height - 1 - b;
        const v = position[index(at[0], at[1], at[2])];
        if (v < 0 || !pass[v]) continue;
        const value = coloured(state.show, v);
        const share = (Math.abs(value) - range.low) / (range.high - range.low);
        const table = shown.kind === "plain" ? ramps.plain : value < 0 ? ramps.negative : ramps.positive;
        const c = 3 * Math.max(0, Math.min(255, Math.round(255 * share)));
        const o = 4 * (b * width + a);
        out[o] = table[c]; out[o + 1] = table[c + 1]; out[o + 2] = table[c + 2]; out[o + 3] = 255;
      }
    }
    target.width = width; target.height = height;
    target.getContext("2d").putImageData(image, 0, 0);
  }

  function paintUnder(plane, target) {
    const { shape, step } = data.underlay, [h, w] = AXES[plane], fixed = { x: 0, y: 1, z: 2 }[plane];
    const width = shape[h], height = shape[w], image = new ImageData(width, height);
    const at = [0, 0, 0];
    at[fixed] = Math.min(shape[fixed] - 1, Math.round((state.at[fixed] * data.step) / step));
    for (let b = 0; b < height; b++) {
      for (let a = 0; a < width; a++) {
        at[h] = h === 0 ? width - 1 - a : a;
        at[w] = height - 1 - b;
        const grey = under[at[0] + shape[0] * (at[1] + shape[1] * at[2])], o = 4 * (b * width + a);
        image.data[o] = image.data[o + 1] = image.data[o + 2] = grey * 0.82;
        image.data[o + 3] = 255;
      }
    }
    target.width = width; target.height = height;
    target.getContext("2d").putImageData(image, 0, 0);
  }

  const views = [...document.querySelectorAll(".slice")].map((figure) => ({
    plane: figure.dataset.plane, figure, canvas: figure.querySelector("canvas"),
    caption: figure.querySelector("figcaption"), under: document.createElement("canvas"), over: document.createElement("canvas"),
  }));

  // Pixels of a place in millimetres along the two axes of a view.
  function frame(view, wide) {
    const [h, w] = AXES[view.plane], across = data.window[h], up = data.window[w];
    const scale = wide / (across[1] - across[0]);
    return { scale, high: Math.round(scale * (up[1] - up[0])), x: (mm) => (mm - across[0]) * scale, y: (mm) => (up[1] - mm) * scale };
  }

  // Draw a slice whose grid has this shape and step.
  function place(ctx, view, picture, shape, step, at) {
    const [h, w] = AXES[view.plane], half = step / 2;
    const first = h === 0 ? data.origin[0] - step * (shape[0] - 1) : data.origin[h];
    const top = data.origin[w] + step * (shape[w] - 1);
    ctx.drawImage(picture, at.x(first - half), at.y(top + half), shape[h] * step * at.scale, shape[w] * step * at.scale);
  }

  function draw(view) {
    const { plane, canvas } = view, [h, w] = AXES[plane];
    const ratio = window.devicePixelRatio || 1;
    const wide = Math.max(1, Math.round(canvas.clientWidth * ratio));
    const at = frame(view, wide), high = at.high;
    if (canvas.width !== wide || canvas.height !== high) { canvas.width = wide; canvas.height = high; }
    const ctx = canvas.getContext("2d");
    ctx.clearRect(0, 0, wide, high);
    ctx.imageSmoothingEnabled = true; ctx.imageSmoothingQuality = "high";
    place(ctx, view, view.under, data.underlay.shape, data.underlay.step, at);
    ctx.imageSmoothingEnabled = false;
    ctx.globalAlpha = state.opacity;
    place(ctx, view, view.over, data.shape, data.step, at);
    ctx.globalAlpha = 1;
    const mm = toMm(state.at), cx = at.x(mm[h]), cy = at.y(mm[w]);
    const gap = 7 * ratio;
    ctx.strokeStyle = "rgba(255,255,255,.62)"; ctx.lineWidth = ratio;
    ctx.beginPath();
    for (const [a, b, c, d] of [[0, cy, cx - gap, cy], [cx + gap, cy, wide, cy], [cx, 0, cx, cy - gap], [cx, cy + gap, cx, high]]) {
      ctx.moveTo(a, b); ctx.lineTo(c, d);
    }
    ctx.stroke();
    ctx.fillStyle = "#dfe4ea"; ctx.font = `600 ${12 * ratio}px system-ui, sans-serif`; ctx.textBaseline = "top";
    const [left, right] = h === 0 ? ["L", "R"] : ["P", "A"];
    ctx.textAlign = "left"; ctx.fillText(left, 6 * ratio, 6 * ratio);
    ctx.textAlign = "right"; ctx.fillText(right, wide - 6 * ratio, 6 * ratio);
    const axis = { x: 0, y: 1, z: 2 }[plane];
    view.caption.textContent = `${NAMES[plane]}, ${plane} = ${signed(mm[axis])}`;
  }

  // Slices share one scale: as wide as their axis is long.
  function layOut() {
    const length = (axis) => data.window[axis][1] - data.window[axis][0];
    for (const view of views) {
      const [h, w] = AXES[view.plane];
      view.canvas.style.aspectRatio = `${length(h)} / ${length(w)}`;
    }
    const style = document.querySelector(".slices").style;
    style.setProperty("--columns", `${length(1)}fr ${length(0)}fr ${length(0)}fr`);
    style.setProperty("--narrow", `${length(1)}fr ${length(0)}fr`);
  }

  function colourBar() {
    const canvas = $("colour-bar"), ctx = canvas.getContext("2d"), shown = byId[state.show];
    const image = ctx.createImageData(canvas.width, 1), n = canvas.width;
    for (let i = 0; i < n; i++) {
      const s = shown.kind === "plain" ? i / (n - 1) : (2 * i) / (n - 1) - 1;
      const table = shown.kind === "plain" ? ramps.plain : s < 0 ? ramps.negative : ramps.positive;
      const c = 3 * Math.round(255 * Math.abs(s));
      image.data.set([table[c], table[c + 1], table[c + 2], 255], 4 * i);
    }
    for (let row = 0; row < canvas.height; row++) ctx.putImageData(image, 0, row);
    const back = (v) => (shown.kind === "p" ? "p " + write(10 ** -v) : write(v));
    const minus = (v) => (shown.kind === "p" ? back(v) : write(-v));
    const texts = shown.kind === "plain" ? [back(range.low), back(range.high)] : [minus(range.high), `\u2213${back(range.low)}`, back(range.high)];
    $("ticks").replaceChildren(...texts.map((text) => Object.assign(document.createElement("span"), { textContent: text.replace("\u2213", shown.kind === "p" ? "" : "\u00b1") })));
  }

  function readout() {
    const v = position[index(...state.at)], mm = toMm(state.at);
    const rows = [["Region", v < 0 ? "outside the mask" : data.regions[region[v]] || "\u2013"]];
    if (v >= 0) {
      for (const id of new Set([state.show, state.where, "z", "g"])) if (ready[id]) rows.push([byId[id].label, write(raw(id, v)), id]);
      rows.push(["Passes the threshold", pass[v] ? "yes" : "no"]);
    }
    $("readout").replaceChildren(...rows.map(([name, text, id]) => {
      const box = document.createElement("div");
      const value = Object.assign(document.createElement("dd"), { textContent: text });
      if (id) { value.dataset.map = id; value.dataset.value = raw(id, v); }
      box.append(Object.assign(document.createElement("dt"), { textContent: name }), value);
      return box;
    }));
    mm.forEach((value, a) => { $("xyz"[a]).value = value; });
  }

  function sentence() {
    const where = byId[state.where], sides = $("side").selectedOptions[0].textContent;
    const volume = (passed * data.step ** 3) / 1000;
    const test = `${where.label} ${where.kind === "p" ? "\u2264" : "\u2265"} ${write(state.t)}`;
    const strong = Object.assign(document.createElement("strong"), { id: "count", textContent: passed.toLocaleString("en-US") });
    strong.dataset.count = passed;
    const side = where.kind === "plain" ? "" : `, ${sides}`;
    $("state").replaceChildren(strong, ` ${passed === 1 ? "voxel" : "voxels"} (${volume.toLocaleString("en-US", { maximumFractionDigits: 1 })} cm\u00b3) with ${test}${side}`);
    for (const button of $("presets").children) button.setAttribute("aria-pressed", String(["where", "side", "t"].every((k) => data.presets[button.dataset.preset][k] === state[k])));
  }

  function slider() {
    const entry = byId[state.where];
    if (entry.kind === "p") return Math.round((1000 * Math.log(Math.max(1, state.t * entry.permutations))) / Math.log(Math.max(2, entry.permutations)));
    return Math.round((1000 * state.t) / (entry.max || 1));
  }
  function fromSlider(s) {
    const entry = byId[state.where];
    if (entry.kind === "p") return Math.max(1, Math.round(entry.permutations ** (s / 1000))) / entry.permutations;
    return +((entry.max * s) / 1000).toPrecision(4);
  }

  function redraw() {
    for (const view of views) { paintUnder(view.plane, view.under); paint(view.plane, view.over); draw(view); }
    readout();
  }

  // Take over what was chosen, after its maps are there.
  async function choose(change) {
    Object.assign(state, change);
    await Promise.all(["z", "g", state.show, state.where].map(need));
    const entry = byId[state.where];
    if (entry.kind === "plain" || (entry.kind !== "p" && state.side === "two-sided")) state.side = "both";
    $("side").disabled = entry.kind === "plain";
    $("side").querySelector("[value=two-sided]").disabled = entry.kind !== "p";
    $("relation").textContent = entry.kind === "p" ? "is at most" : "is at least";
    for (const name of ["show", "where", "side"]) $(name).value = state[name];
    if (+$("threshold").value !== state.t) $("threshold").value = state.t;
    $("threshold-slider").value = slider();
    recount(); redraw(); colourBar(); sentence();
  }

  function go(mm) { state.at = fromMm(mm); redraw(); }

  function step(axis, n) {
    const mm = toMm(state.at);
    mm[axis] += n * data.step;
    go(mm);
  }

  // The voxel of largest |value| among those that are shown.
  function strongest() {
    let best = -1, at = null;
    for (let v = 0; v < position.length; v++) {
      const m = position[v];
      if (m < 0 || !pass[m]) continue;
      const size = Math.abs(coloured(state.show, m));
      if (size > best) { best = size; at = v; }
    }
    if (at !== null) go(toMm([at % nx, Math.floor(at / nx) % ny, Math.floor(at / (nx * ny))]));
  }

  async function open() {
    position = await Volume.positions(data.shape, data.voxels);
    [under, region] = await Promise.all([Volume.read("underlay", "uint8"), Volume.read("labels", "uint16")]);
    state.at = fromMm(state.mm);
    layOut();
    await choose({});
  }

  return { data, views, state, byId, AXES, open, choose, go, step, strongest, fromSlider, toMm, resize: () => views.forEach(draw) };
})();

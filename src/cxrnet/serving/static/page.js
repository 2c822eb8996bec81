"use strict";
// Text goes in by textContent alone: names of files and classes are other people's.
const at = (id) => document.getElementById(id);
const TOGETHER = 8; // files of one request
const NORMAL = /^(normal|no[ _-]?finding|healthy|negative|non[ _-].*)$/i;
const AGAIN = new Set([429, 503]);
let token = "", model = null, readings = [], current = null, asked = 0;

function made(tag, text, cls) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (cls) node.className = cls;
  return node;
}

async function call(path, options = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  for (let attempt = 0; ; attempt++) {
    const answer = await fetch(path, { ...options, headers });
    if (AGAIN.has(answer.status) && attempt < 30) {
      await new Promise((done) => setTimeout(done, 1000 * Number(answer.headers.get("Retry-After") || 2)));
      continue;
    }
    if (answer.status === 401) at("token-form").hidden = false;
    const body = await answer.json();
    if (body.error) throw new Error(body.error);
    return body;
  }
}

function form(files) {
  const data = new FormData();
  for (const file of files) data.append("files", file, file.name);
  return data;
}

const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)} %`;
const metric = (m) => m.value === null ? "not known" : m.value.toFixed(3) + (m.interval ? ` (95 % CI ${m.interval[0].toFixed(3)} to ${m.interval[1].toFixed(3)})` : "");

async function begin() {
  model = await call("/v1/model");
  at("token-form").hidden = true;
  at("model").textContent = `${model.backbone}, ${model.classes.join(", ")}; trained on data ${model.trained_on.slice(0, 12)}${model.gate ? "" : "; no gate: every picture gets a class"}`;
  const first = Object.keys(model.operating_points)[0] || model.classes.find((name) => !NORMAL.test(name)) || model.classes[0];
  for (const id of ["urgent", "map-label"]) at(id).replaceChildren(...model.classes.map((name) => new Option(name, name)));
  at("urgent").value = first;
  const kinds = [...model.classes, "deferred to a reader", "turned away", "unreadable"];
  at("filter").replaceChildren(new Option("all", ""), ...kinds.map((name) => new Option(name, name)));
  const audit = model.audit.length ? model.audit : ["The model was not audited. python -m cxrnet.audit bundle=<run> says what it tells the classes from."];
  at("audit").replaceChildren(...audit.map((text) => made("p", text)));
}

function outcome(reading) {
  if (reading.error) return "unreadable";
  return reading.turned_away ? "turned away" : reading.predicted;
}

async function read(files) {
  files = [...files];
  for (let start = 0; start < files.length; start += TOGETHER) {
    at("status").textContent = `Reading ${start + 1} of ${files.length} …`;
    const some = files.slice(start, start + TOGETHER);
    let images;
    try {
      images = await readSome(some);
    } catch (error) {
      at("status").textContent = error.message;
      return;
    }
    images.forEach((image, place) => readings.push({ ...image, upload: some[place], number: readings.length }));
    list();
  }
  at("status").textContent = `${files.length === 1 ? "1 image" : `${files.length} images`} read.`;
  const [row] = sorted();
  if (row) show(row);
}

async function readSome(files) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch("/v1/predict", { method: "POST", body: form(files), headers });
  const body = await answer.json();
  if (body.images) return body.images; // of 422 too: each has its error
  if (AGAIN.has(answer.status)) {
    await new Promise((done) => setTimeout(done, 2000));
    return readSome(files);
  }
  throw new Error(body.error);
}

function sorted() {
  const name = at("urgent").value, wanted = at("filter").value;
  const urgency = (reading) => (reading.probabilities ? reading.probabilities[name] : -1);
  const kept = readings.filter((reading) => !wanted || outcome(reading) === wanted || (wanted === "deferred to a reader" && reading.deferred));
  return kept.sort((a, b) => urgency(b) - urgency(a) || a.number - b.number);
}

function list() {
  at("worklist").hidden = readings.length < 2;
  at("rows").replaceChildren(...sorted().map((reading) => {
    const row = document.createElement("tr"), open = made("button", reading.file), name = made("td");
    open.type = "button";
    open.addEventListener("click", () => show(reading));
    name.append(open);
    row.setAttribute("aria-current", String(reading === current));
    const note = reading.error || reading.turned_away || (reading.deferred ? "deferred to a reader" : reading.triage || "");
    const known = reading.probabilities;
    row.append(name, made("td", outcome(reading), known ? "" : "flag"), made("td", known ? percent(known[at("urgent").value], 1) : ""), made("td", note));
    return row;
  }));
}

function show(reading) {
  current = reading;
  list();
  at("detail").hidden = false;
  const name = reading.predicted;
  at("said").textContent = reading.error || (reading.turned_away ? `This picture ${reading.turned_away}.` : `${name}${reading.deferred ? ", deferred to a reader" : ""}`);
  at("said").classList.toggle("flag", !name);
  at("bars").replaceChildren(...Object.entries(reading.probabilities || {}).flatMap(([each, share]) => {
    const term = made("dt"), value = made("dd"), bar = document.createElement("progress");
    term.append(made("span", each), made("span", percent(share, 1)));
    bar.value = share;
    bar.setAttribute("aria-label", `probability of ${each}`);
    value.append(bar);
    return [term, value];
  }));
  if (name) at("map-label").value = name;
  at("map-label").disabled = !name;
  worth();
  look();
}

async function look() {
  const number = ++asked, reading = current;
  at("picture").removeAttribute("src");
  at("map").removeAttribute("src");
  at("map-note").textContent = "";
  at("cases").replaceChildren();
  at("cases-note").textContent = "";
  if (reading.error) return;
  const label = reading.predicted ? `?label=${encodeURIComponent(at("map-label").value)}` : "";
  try {
    const seen = await call(`/v1/look${label}`, { method: "POST", body: form([reading.upload]) });
    if (number !== asked) return; // another one was chosen meanwhile
    at("picture").src = seen.picture;
    at("picture").alt = `${reading.file} as the network sees it`;
    if (seen.map) at("map").src = seen.map;
    cases(seen.cases);
    at("map-note").textContent = seen.label ? `Map: what speaks for ${seen.label} (Grad-CAM); ${seen.note}.` : "";
  } catch (error) {
    if (number === asked) at("map-note").textContent = error.message;
  }
}

function cases(found) {
  at("cases").replaceChildren(...found.map((each) => {
    const item = made("li");
    if (each.thumbnail) {
      const picture = document.createElement("img");
      picture.src = each.thumbnail;
      picture.alt = "";
      item.append(picture);
    }
    item.append(made("span", `${each.label} (cosine ${each.cosine.toFixed(2)})`));
    return item;
  }));
  const kept = found.some((each) => each.thumbnail);
  at("cases-note").textContent = !found.length ? "Not known: the bundle has no gate, which knows them." : kept ? "" : "Their pictures don't lie in the bundle: it was made without keep_examples=true.";
}

function tone() {
  at("map").style.opacity = at("opacity").value / 100;
  at("picture").style.filter = `brightness(${at("level").value / 100}) contrast(${at("window").value / 100})`;
  at("stage").style.width = `${at("zoom").value}%`;
}

async function worth() {
  const prevalence = 10 ** (at("prevalence").value / 10);
  at("prevalence-text").textContent = percent(prevalence, prevalence < 0.1 ? 1 : 0);
  const tested = model.tested.classes;
  const name = current && current.predicted;
  if (!tested || !name) {
    at("worth").replaceChildren(made("p", tested ? "" : `Not known: ${model.tested.reason}.`));
    return;
  }
  const values = await call(`/v1/predictive_values?prevalence=${prevalence}`);
  if (!current || current.predicted !== name) return;
  const { sensitivity, specificity } = tested[name], { ppv, npv } = values[name];
  at("worth").replaceChildren(
    made("p", `On the run's own test images: sensitivity for ${name} ${metric(sensitivity)} of ${sensitivity.n}, specificity ${metric(specificity)} of ${specificity.n}.`),
    made("p", `Where ${at("prevalence-text").textContent} have ${name}: a prediction of ${name} is right with PPV ${metric(ppv)}; without one, NPV ${metric(npv)}.`),
  );
}

function csv() {
  const cell = (value) => `"${String(value ?? "").replace(/^([=+\-@\t\r])/, "'$1").replaceAll('"', '""')}"`;
  const head = ["file", "reading", ...model.classes.map((name) => `prob_${name}`), "deferred", "note"];
  const rows = sorted().map((reading) => [
    reading.file, outcome(reading), ...model.classes.map((name) => (reading.probabilities ? reading.probabilities[name] : "")),
    reading.deferred ?? "", reading.error || reading.turned_away || reading.triage || "",
  ]);
  const text = [head, ...rows].map((row) => row.map(cell).join(",")).join("\r\n");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(["\ufeff", text, "\r\n"], { type: "text/csv" }));
  link.download = "readings.csv";
  link.click();
  URL.revokeObjectURL(link.href);
}

function start() {
  begin().catch((error) => { at("status").textContent = error.message; });
}

at("files").addEventListener("change", (event) => { read(event.target.files).then(() => { event.target.value = ""; }); });
for (const kind of ["dragover", "dragleave", "drop"]) {
  at("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") read(event.dataTransfer.files);
  });
}
for (const id of ["opacity", "level", "window", "zoom"]) at(id).addEventListener("input", tone);
for (const id of ["urgent", "filter"]) at(id).addEventListener("change", list);
at("map-label").addEventListener("change", look);
at("prevalence").addEventListener("input", worth);
at("csv").addEventListener("click", csv);
at("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = at("token").value.trim();
  start();
});
start();

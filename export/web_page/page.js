// The page: takes a file, shows it and what the network says of it.
// `?image=photo.jpg` classifies a file of the page's own server.

import { Classifier, NotAnImage } from "./classifier.js";

const TOP = 5;
const element = (id) => document.getElementById(id);

const loading = Classifier.load();
let work = start(); // what is under way; one image after the other

async function start() {
  say("busy", "Loading the network …");
  try {
    const { metadata } = await loading;
    document.title = metadata.name;
    element("name").textContent = metadata.name;
    say("ready", "Ready.");
  } catch (error) {
    say("error", `The network cannot be loaded: ${error.message}`);
  }
}

/** Shows a file's likeliest classes, or why there are none. */
async function show(file) {
  const classifier = await loading.catch(() => null);
  if (!classifier) return; // `start` has said why
  element("result").hidden = true;
  say("busy", `Looking at ${file.name} …`);
  try {
    const found = await classifier.classify(file);
    await showPreview(file);
    const likeliest = found.likeliest(TOP);
    element("classes").replaceChildren(...likeliest.map(line));
    element("result").hidden = false;
    say("done", summarize(likeliest[0], found));
  } catch (error) {
    say("error", explain(error, file));
  }
}

function explain(error, file) {
  if (error instanceof NotAnImage) {
    return `${file.name} is no image that this browser can read. Expected: a JPEG or PNG file.`;
  }
  return `${file.name} could not be classified: ${error.message}`;
}

function summarize({ label, probability }, { milliseconds, transparent }) {
  const time = `The network took ${milliseconds.toFixed(0)} ms.`;
  const note = transparent ? " Where the image is transparent, Python may see other colours." : "";
  return `${label}, ${percent(probability)}. ${time}${note}`;
}

function percent(probability) {
  return `${(100 * probability).toFixed(1)} %`;
}

function line({ label, probability }) {
  const item = document.createElement("li");
  const name = document.createElement("span");
  name.className = "label";
  name.textContent = label;
  const value = document.createElement("data");
  value.value = String(probability);
  value.textContent = percent(probability);
  const bar = document.createElement("div");
  bar.className = "bar";
  bar.style.setProperty("--share", probability);
  item.append(name, value, bar);
  return item;
}

async function showPreview(file) {
  const preview = element("preview");
  URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(file);
  preview.alt = `Preview of ${file.name}`;
  element("caption").textContent = file.name;
  await preview.decode();
}

function say(state, text) {
  element("status").dataset.state = state;
  element("status").textContent = text;
}

function take(file) {
  if (file) work = work.then(() => show(file));
}

async function fetchImage(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status} ${response.statusText}`);
  return new File([await response.blob()], url.split("/").pop());
}

element("file").addEventListener("change", (event) => {
  take(event.target.files[0]);
  event.target.value = ""; // so that the same file can be chosen again
});

// All of the page: a file dropped beside a smaller target would replace the page.
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", () => document.body.classList.remove("dragging"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  take(event.dataTransfer.files[0]);
});

const wanted = new URLSearchParams(location.search).get("image");
if (wanted) {
  work = work
    .then(() => fetchImage(wanted))
    .then(show)
    .catch((error) => say("error", `The image cannot be fetched: ${error.message}`));
}

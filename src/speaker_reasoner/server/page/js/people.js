/** People who may be in a recording: clips of their voices, and those that the server keeps. */

import { get } from "./api.js";
import { $, h, icon } from "./dom.js";

const NAME_LENGTH = 100;

/** Offer what the server knows, and room for clips. */
export function setUpPeople() {
  $("add-voice").onclick = () => addClip().querySelector("input").focus();
  get("v1/voices").then(({ data }) => $("stored").replaceChildren(...data.map(stored)), () => {});
}

function stored({ name }) {
  return h("li", {}, h("label", {}, h("input", { type: "checkbox", value: name }), h("span", {}, name)));
}

function addClip() {
  const name = h("input", { class: "clip-name", "aria-label": "Name", placeholder: "Name", maxlength: String(NAME_LENGTH), autocomplete: "off" });
  const file = h("input", { class: "sr", type: "file", accept: "audio/*,video/*,.flac,.opus,.ogg,.m4a", multiple: true, onchange: shown });
  const said = h("span", { class: "clip-file" }, "Choose a clip");
  const row = h(
    "li", {}, name, h("label", { class: "button small" }, icon("file"), said, file),
    h("button", { type: "button", class: "icon", "aria-label": "Remove this voice", onclick: remove }, icon("close")),
  );
  function shown() {
    const [first, ...more] = file.files;
    said.textContent = first ? first.name + (more.length ? ` and ${more.length} more` : "") : "Choose a clip";
    if (first && !name.value) name.value = first.name.replace(/\.\w{2,5}$/, "").slice(0, NAME_LENGTH);
    file.setCustomValidity("");
  }
  function remove() {
    const next = row.nextElementSibling ?? row.previousElementSibling;
    row.remove();
    (next?.querySelector("input") ?? $("add-voice")).focus();
  }
  name.oninput = () => name.setCustomValidity("");
  $("clips").append(row);
  return row;
}

/** Whether every clip has a name and every name a clip; says where not. */
export function checkPeople() {
  for (const row of $("clips").children) {
    const [name, file] = row.querySelectorAll("input");
    name.setCustomValidity(name.value.trim() ? "" : "Who is it?");
    file.setCustomValidity(file.files.length ? "" : "Choose a clip of this voice, or remove it.");
    if (!name.reportValidity() || !file.reportValidity()) return false;
  }
  return true;
}

/** The fields of a job that say who may be in it. */
export async function peopleFields() {
  const fields = { "voices[]": [], "known_speaker_names[]": [], "known_speaker_references[]": [] };
  for (const box of $("stored").querySelectorAll("input:checked")) fields["voices[]"].push(box.value);
  for (const row of $("clips").children) {
    const [name, file] = row.querySelectorAll("input");
    for (const clip of file.files) {
      fields["known_speaker_names[]"].push(name.value.trim());
      fields["known_speaker_references[]"].push(await dataUrl(clip));
    }
  }
  return fields;
}

function dataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error(`${file.name} cannot be read.`));
    reader.readAsDataURL(file);
  });
}

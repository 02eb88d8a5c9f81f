/** The server as functions. Every failure is an `ApiError` with the server's own words. */

import { $ } from "./dom.js";

const KEY = "speaker-reasoner-key";
const RETRY_MS = 2000;
let asking = null;
let refused = false; // somebody was asked for a key, and gave none

export class ApiError extends Error {
  constructor(message, status = 0, code = null) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export const key = () => sessionStorage.getItem(KEY);
export const jobPath = (id, rest = "") => `v1/jobs/${encodeURIComponent(id)}${rest}`;
const auth = () => (key() === null ? {} : { Authorization: `Bearer ${key()}` });

/**
 * Ask for the key, once however many requests wait for it.
 * @param {string|null} tried the key that the server refused.
 * @returns {Promise<boolean>} whether another one was given.
 */
function askKey(tried) {
  if (key() !== tried) return Promise.resolve(true); // given meanwhile
  if (refused) return Promise.resolve(false);
  asking ??= new Promise((resolve) => {
    const dialog = $("key");
    const input = dialog.querySelector("input");
    dialog.querySelector(".wrong").textContent = tried === null ? "" : "That is not this server's key.";
    input.value = "";
    dialog.returnValue = "";
    dialog.addEventListener("close", () => {
      const given = dialog.returnValue === "ok" && input.value !== "";
      if (given) sessionStorage.setItem(KEY, input.value);
      else refused = true;
      asking = null;
      link("key", given);
      resolve(given);
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}

/** Ask once more for a key that was not given before. */
export function askAgain() {
  refused = false;
  return askKey(key());
}

/** How the server can be reached: `ok`, `lost`, or `key` (it asks for one that nobody gave). */
export const connection = new EventTarget();
connection.state = "ok";

function link(state, fine = false) {
  const now = fine ? "ok" : state;
  if (connection.state === now) return;
  connection.state = now;
  connection.dispatchEvent(new Event("change"));
  if (now === "lost") setTimeout(probe, RETRY_MS);
}

/** Look whether a lost server is back. */
async function probe() {
  try {
    await fetch("health");
    link("ok");
  } catch {
    setTimeout(probe, RETRY_MS);
  }
}

/** What went wrong, from a body of OpenAI's shape or, failing that, the status. */
function failure(status, body) {
  let message = `The server answered ${status}.`, code = null;
  try {
    ({ message, code } = JSON.parse(body).error);
  } catch { /* not a body of ours, the status has to do */ }
  return new ApiError(message, status, code);
}

/** Fetch, with the key; asks for it on 401. @returns {Promise<Response>} an ok response. */
export async function request(path, options = {}) {
  let response;
  const tried = key();
  try {
    response = await fetch(path, { ...options, headers: { ...options.headers, ...auth() } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    link("lost");
    throw new ApiError("The server cannot be reached.");
  }
  if (response.status === 401) {
    if (await askKey(tried)) return request(path, options);
    throw new ApiError("The server asks for a key.", 401);
  }
  link("ok");
  if (!response.ok) throw failure(response.status, await response.text());
  return response;
}

export const get = async (path) => (await request(path)).json();

export async function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  return (await request(path, { method: "POST", headers, body: JSON.stringify(body) })).json();
}

/** Send a file as a new job; a field may have several values (XMLHttpRequest, since fetch does not tell how much was sent). */
export function upload(file, fields, onprogress, signal) {
  const form = new FormData();
  for (const [name, values] of Object.entries(fields)) for (const value of [values].flat()) form.append(name, value);
  form.append("file", file, file.name);
  return new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest(), tried = key();
    xhr.open("POST", "v1/jobs");
    for (const [name, value] of Object.entries(auth())) xhr.setRequestHeader(name, value);
    xhr.upload.onprogress = (event) => onprogress(event.loaded / event.total);
    xhr.onload = () => {
      if (xhr.status === 401) askKey(tried).then((given) => (given ? upload(file, fields, onprogress, signal) : Promise.reject(new ApiError("The server asks for a key.", 401)))).then(resolve, reject);
      else if (xhr.status >= 300) reject(failure(xhr.status, xhr.responseText));
      else resolve(JSON.parse(xhr.responseText));
    };
    xhr.onerror = () => reject(new ApiError("The connection broke while sending."));
    xhr.onabort = () => reject(new DOMException("sending was cancelled", "AbortError"));
    signal.addEventListener("abort", () => xhr.abort());
    xhr.send(form);
  });
}

/** Save what a path answers as a file. */
export async function download(path, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await (await request(path)).blob());
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/**
 * Read server-sent events; ends when the server closes the stream.
 * @yields {{id: string, event: string, data: Object}}
 */
export async function* events(path, lastId, signal) {
  const headers = { Accept: "text/event-stream", ...(lastId === null ? {} : { "Last-Event-ID": lastId }) };
  const response = await request(path, { headers, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "", event = { id: lastId, event: "message", data: "" };
  for (;;) {
    let done, value;
    try {
      ({ done, value } = await reader.read());
    } catch (error) {
      if (!signal.aborted) connection.dispatchEvent(new Event("broken"));
      throw error;
    }
    if (done) return;
    const lines = (text + value).split(/\r\n|\r(?!$)|\n/);
    text = lines.pop();
    for (const line of lines) {
      const [, field, content] = /^([^:]*):? ?(.*)$/.exec(line);
      if (line === "") {
        if (event.data) yield { ...event, data: JSON.parse(event.data) };
        event = { id: event.id, event: "message", data: "" };
      } else if (field === "data") event.data += (event.data ? "\n" : "") + content;
      else if (field === "id" || field === "event") event[field] = content;
    }
  }
}

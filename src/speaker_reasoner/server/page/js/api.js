/** The server as functions. Every failure is an `ApiError` with the server's own words. */

import { $ } from "./dom.js";

const KEY = "speaker-reasoner-key";
let asking = null;

export class ApiError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

export const hasKey = () => sessionStorage.getItem(KEY) !== null;
export const jobPath = (id, rest = "") => `v1/jobs/${encodeURIComponent(id)}${rest}`;
const auth = () => (hasKey() ? { Authorization: `Bearer ${sessionStorage.getItem(KEY)}` } : {});

/** Ask for the key, once however many requests wait for it. */
function askKey() {
  asking ??= new Promise((resolve) => {
    const dialog = $("key");
    const input = dialog.querySelector("input");
    input.value = "";
    dialog.addEventListener("close", () => {
      if (input.value) sessionStorage.setItem(KEY, input.value);
      asking = null;
      resolve();
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}

/** What went wrong, from a body of OpenAI's shape or, failing that, the status. */
function failure(status, body) {
  let message = `The server answered ${status}.`;
  try {
    message = JSON.parse(body).error.message;
  } catch { /* not a body of ours, the status has to do */ }
  return new ApiError(message, status);
}

/** Fetch, with the key; asks for it on 401. @returns {Promise<Response>} an ok response. */
export async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: { ...options.headers, ...auth() } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server cannot be reached.");
  }
  if (response.status === 401) {
    await askKey();
    return request(path, options);
  }
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
    const xhr = new XMLHttpRequest();
    xhr.open("POST", "v1/jobs");
    for (const [name, value] of Object.entries(auth())) xhr.setRequestHeader(name, value);
    xhr.upload.onprogress = (event) => onprogress(event.loaded / event.total);
    xhr.onload = () => {
      if (xhr.status === 401) askKey().then(() => upload(file, fields, onprogress, signal)).then(resolve, reject);
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
    const { done, value } = await reader.read();
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

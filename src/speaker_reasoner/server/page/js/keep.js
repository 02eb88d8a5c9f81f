/** What people made in this browser, kept until the server has it: recordings in IndexedDB, typed words in localStorage. */

const DRAFT = "speaker-reasoner-draft/";
let database = null;

// ---- drafts: what somebody types into a line ----

const draftKey = (job, line) => `${DRAFT}${job}/${line}`;

/** Keep what is typed. @param {{text: string, start: string, end: string, base: Object}} draft */
export function keepDraft(job, line, draft) {
  try {
    localStorage.setItem(draftKey(job, line), JSON.stringify(draft));
  } catch { /* no room or not allowed: it stays in the open form */ }
}

export function draftOf(job, line) {
  try {
    return JSON.parse(localStorage.getItem(draftKey(job, line)));
  } catch {
    return null;
  }
}

export function dropDraft(job, line) {
  try {
    localStorage.removeItem(draftKey(job, line));
  } catch { /* not allowed: none is kept either */ }
}

/** Ids of the lines of a job with typed words that were not saved. */
export function draftsOf(job) {
  try {
    return Object.keys(localStorage).filter((key) => key.startsWith(draftKey(job, ""))).map((key) => key.slice(draftKey(job, "").length));
  } catch {
    return [];
  }
}

// ---- takes: what the microphone recorded ----

function open() {
  database ??= new Promise((resolve, reject) => {
    const asked = indexedDB.open("speaker-reasoner", 1);
    asked.onupgradeneeded = () => {
      asked.result.createObjectStore("takes", { keyPath: "id" });
      asked.result.createObjectStore("parts", { keyPath: ["take", "number"] });
    };
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error);
  });
  database.catch(() => { database = null; });
  return database;
}

/** One request in a transaction of its own; done when it is on the disk. */
async function run(stores, mode, act) {
  const transaction = (await open()).transaction(stores, mode, { durability: "strict" });
  const asked = act(transaction);
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(asked?.result);
    transaction.onerror = transaction.onabort = () => reject(transaction.error);
  });
}

const partsOf = (take) => IDBKeyRange.bound([take], [take, Infinity]);

/** A recording that begins: its name, type and time. */
export async function beginTake(id, name, type) {
  navigator.storage?.persist?.();
  await run("takes", "readwrite", (at) => at.objectStore("takes").put({ id, name, type, began: Date.now(), seconds: 0 }));
}

/** A second more of it. */
export async function addPart(take, number, blob, seconds) {
  const bytes = await blob.arrayBuffer(); // not every browser keeps blobs
  await run(["takes", "parts"], "readwrite", (at) => {
    at.objectStore("parts").put({ take: take.id, number, bytes });
    return at.objectStore("takes").put({ ...take, seconds });
  });
}

/** What is kept and not just being recorded or sent, here or in another tab; oldest first. */
export async function takes() {
  let kept, held = [];
  try {
    kept = await run("takes", "readonly", (at) => at.objectStore("takes").getAll());
    held = (await navigator.locks?.query())?.held.map((one) => one.name) ?? [];
  } catch {
    return [];
  }
  return kept.filter((take) => !held.includes(`take-${take.id}`)).sort((a, b) => a.began - b.began);
}

/** The whole of it as a file; null if nothing was kept. */
export async function fileOf(take) {
  const parts = await run("parts", "readonly", (at) => at.objectStore("parts").getAll(partsOf(take.id)));
  return parts.length ? new File(parts.map((part) => part.bytes), take.name, { type: take.type }) : null;
}

export async function dropTake(id) {
  await run(["takes", "parts"], "readwrite", (at) => {
    at.objectStore("parts").delete(partsOf(id));
    return at.objectStore("takes").delete(id);
  });
}

/** Hold a take, so that no other tab offers it, while `act` goes on. */
export const holding = (id, act) => (navigator.locks ? navigator.locks.request(`take-${id}`, act) : act());

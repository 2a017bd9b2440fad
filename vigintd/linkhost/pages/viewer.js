"use strict";
// Plays a clip while it is being recorded and afterwards, its parts in order. A finished clip plays without this script.

const root = document.getElementById("clip");
const video = document.getElementById("video");
const toLive = document.getElementById("to-live");
const query = location.search;
const url = (kind, index) => `${root.dataset.clip}/${kind}/${index}.mp4${query}`;
const Source = window.ManagedMediaSource || window.MediaSource;
const MAX_TROUBLES = 30;
const MAX_LOOKS = 5000;

let status = null;
let current = null; // index of the part that plays; null before the first
let waiting = true; // nothing plays; the next part may begin
let cut = false; // the beginning was given up for memory
let troubles = 0;

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const once = (target, name) =>
  new Promise((resolve, reject) => {
    target.addEventListener(name, resolve, { once: true });
    target.addEventListener("error", reject, { once: true });
  });

// Media Source, fed by one streaming fetch of the growing part.
async function follow(index, mime, from) {
  const media = new Source();
  video.disableRemotePlayback = true;
  video.src = URL.createObjectURL(media);
  await once(media, "sourceopen");
  URL.revokeObjectURL(video.src);
  const buffer = media.addSourceBuffer(mime);
  const answer = await fetch(url("live", index));
  if (!answer.ok) throw new Error(answer.status);
  const reader = answer.body.getReader();
  for (let read = await reader.read(); !read.done; read = await reader.read()) {
    await append(buffer, read.value);
    const begin = buffer.buffered.length ? buffer.buffered.start(0) : 0;
    if (video.currentTime < Math.max(begin, from)) video.currentTime = Math.max(begin, from);
  }
  if (media.readyState === "open") media.endOfStream();
}

async function append(buffer, data) {
  for (;;) {
    try {
      buffer.appendBuffer(data);
      return await once(buffer, "updateend");
    } catch (error) {
      if (error.name !== "QuotaExceededError") throw error;
      // The browser's memory is full: what was seen long ago goes, or we wait until more was seen.
      if (video.currentTime - buffer.buffered.start(0) > 20) {
        cut = true;
        buffer.remove(0, video.currentTime - 10);
        await once(buffer, "updateend");
      } else await once(video, "timeupdate");
    }
  }
}

function show(part, from = 0) {
  current = part.index;
  waiting = false;
  document.getElementById("coming").hidden = true;
  if (!part.sealed && Source && part.mime.includes("codecs") && Source.isTypeSupported(part.mime)) {
    follow(part.index, part.mime, from).catch(() => retry(part.index));
  } else {
    video.src = url("part", part.index);
    if (from) video.currentTime = from;
  }
  mark();
  video.play().catch(() => {});
}

// Broken off, or begun anew by the uploader: ask again, from where the viewer was.
async function retry(index) {
  if (index !== current || ++troubles > MAX_TROUBLES) return;
  await sleep(2000);
  await look();
  const part = status.parts.find((each) => each.index === index && each.bytes);
  if (index !== current) return;
  if (part) show(part, video.currentTime);
  else waiting = true;
}

function advance() {
  const next = waiting && status.parts.find((part) => part.bytes && (current === null || part.index > current));
  if (next) show(next);
}

function mark() {
  for (const link of document.querySelectorAll("[data-part]")) {
    if (Number(link.dataset.part) === current) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}

async function look() {
  const answer = await fetch(`${root.dataset.clip}/status${query}`);
  if (answer.status === 404 || answer.status === 410) location.reload();
  if (!answer.ok) throw new Error(answer.status);
  const before = status;
  status = await answer.json();
  if (before ? before.version !== status.version : status.state !== root.dataset.state) await renew();
}

// What the page says, taken from the page as the server now writes it; the player is left alone.
async function renew() {
  const answer = await fetch(location.href, { headers: { "Vigint-Refresh": "1" } });
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const id of ["state", "details"]) document.getElementById(id).replaceWith(page.getElementById(id));
  root.dataset.state = status.state;
  mark();
}

async function watch() {
  for (let looks = 0; looks < MAX_LOOKS && troubles <= MAX_TROUBLES; looks += 1) {
    try {
      await look();
      advance();
      if (status.state === "finished") break;
    } catch {
      troubles += 1;
    }
    await sleep(status?.state !== "recording" || document.hidden ? 10000 : waiting ? 700 : 2000);
  }
  // The whole file in the place of what memory kept of it.
  const part = status?.parts.find((each) => each.index === current);
  if (cut && part?.sealed) show(part, video.currentTime);
}

video.addEventListener("ended", () => {
  waiting = true;
  if (status) advance();
});
video.addEventListener("loadedmetadata", () => {
  if (video.videoWidth) video.style.aspectRatio = `${video.videoWidth} / ${video.videoHeight}`;
});
video.addEventListener("error", () => {
  document.getElementById("trouble").hidden = !video.error || status?.state === "recording";
});
video.addEventListener("timeupdate", () => {
  const end = video.seekable.length ? video.seekable.end(video.seekable.length - 1) : 0;
  toLive.hidden = status?.state !== "recording" || end - video.currentTime < 5;
});
video.addEventListener("playing", () => {
  document.getElementById("trouble").hidden = true;
});
toLive.addEventListener("click", () => {
  const end = video.seekable.length ? video.seekable.end(video.seekable.length - 1) : 0;
  if (end) video.currentTime = Math.max(0, end - 1);
  video.play().catch(() => {});
});
root.addEventListener("click", (event) => {
  const link = event.target.closest("[data-part]");
  const part = link && status?.parts.find((each) => each.index === Number(link.dataset.part));
  if (part) {
    event.preventDefault();
    show(part);
  }
});

if (video.hasAttribute("src")) {
  waiting = false;
  current = 0;
}
watch();

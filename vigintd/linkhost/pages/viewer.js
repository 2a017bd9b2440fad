"use strict";
// Plays a clip while it is being recorded and afterwards, its parts in order. A finished clip plays without this script.

const root = document.getElementById("clip");
const video = document.getElementById("video");
const play = document.getElementById("play");
const toLive = document.getElementById("to-live");
const query = location.search;
const place = (name) => `${root.dataset.clip}/${name}${query}`;
const Source = window.ManagedMediaSource || window.MediaSource; // on iPhones only the managed one is there
const listed = !Source && video.canPlayType("application/vnd.apple.mpegurl");
const MAX_TROUBLES = 30;
const MAX_LOOKS = 5000;

let status = null;
let current = null; // index of the part that plays; null before the first
let waiting = true; // nothing plays; the next part may begin
let feed = null; // ends what feeds the player
let cut = false; // some of what was fed is gone from the browser's memory
let attended = false; // a person has acted on this page
let alone = false; // video was fetched before that
let troubles = 0;

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const part = (index) => status?.parts.find((each) => each.index === index && each.bytes);
const liveEdge = () => (video.seekable.length ? video.seekable.end(video.seekable.length - 1) : 0);

const holds = (time) => {
  for (let at = 0; at < video.buffered.length; at += 1) {
    if (video.buffered.start(at) <= time && time < video.buffered.end(at)) return true;
  }
  return false;
};

const once = (target, name) =>
  new Promise((resolve, reject) => {
    target.addEventListener(name, resolve, { once: true });
    target.addEventListener("error", reject, { once: true });
  });

// Media Source, fed by one streaming fetch of the growing part.
async function follow(index, mime, signal) {
  const media = new Source();
  video.disableRemotePlayback = true; // a managed source opens only so
  video.src = URL.createObjectURL(media);
  await once(media, "sourceopen");
  URL.revokeObjectURL(video.src);
  const buffer = media.addSourceBuffer(mime);
  // A managed source takes from its buffer when the phone needs memory.
  buffer.addEventListener("bufferedchange", (event) => (cut ||= event.removedRanges?.length > 0));
  alone ||= !attended;
  // What a page fetches by itself is no viewing, and the host is told which it is.
  const answer = await fetch(place(`live/${index}.mp4`) + (attended ? "" : "&auto"), { signal });
  if (!answer.ok) throw new Error(answer.status);
  const reader = answer.body.getReader();
  for (let read = await reader.read(); !read.done; read = await reader.read()) {
    await append(buffer, read.value);
    const begin = buffer.buffered.length ? buffer.buffered.start(0) : 0;
    if (!cut && video.currentTime < begin) video.currentTime = begin;
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

// Puts a part into the player. What goes on starts by itself, without sound; anything else waits for a person.
function show({ index, sealed, mime }, from = 0) {
  const held = current !== null && video.paused && !video.ended;
  const going = !sealed || status.state === "recording"; // then also what was sealed before
  const live = going && Source && mime.includes("codecs") && Source.isTypeSupported(mime);
  feed?.abort();
  feed = new AbortController();
  const { signal } = feed;
  current = index;
  waiting = cut = false;
  document.getElementById("coming").hidden = true;
  if (live) follow(index, mime, signal).catch(() => signal.aborted || retry(index));
  else if (listed && status.state !== "finished") video.src = place("playlist.m3u8");
  else video.src = place(`${sealed ? "play" : "part"}/${index}.mp4`);
  if (from) video.currentTime = from;
  mark();
  if (!attended) video.muted = live;
  if (!held && (attended || live)) video.play().catch(() => (play.hidden = !video.paused));
  else play.hidden = !video.paused;
}

// Broken off, or begun anew by the uploader: ask again, from where the viewer was.
async function retry(index) {
  if (index !== current || ++troubles > MAX_TROUBLES) return;
  await sleep(2000);
  await look();
  if (index !== current) return;
  if (part(index)) show(part(index), video.currentTime);
  else waiting = true;
}

function advance() {
  const onList = current !== null && video.currentSrc.includes("/playlist.m3u8"); // it holds all parts
  if (onList && status.state === "finished") leaveList();
  const next = waiting && !onList && status.parts.find((each) => each.bytes && (current === null || each.index > current));
  if (next) show(next);
}

// From the playlist to the files, now that they are whole: not every player can be moved about in a list.
function leaveList() {
  const parts = status.parts.filter((each) => each.bytes);
  let time = video.currentTime;
  let at = 0;
  while (at + 1 < parts.length && time >= status.seconds[at]) time -= status.seconds[at++];
  show(parts[at], time);
}

function mark() {
  for (const link of document.querySelectorAll("[data-part]")) {
    if (Number(link.dataset.part) === current) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}

async function look() {
  const answer = await fetch(place("status"));
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
  if (cut && part(current)?.sealed) show(part(current), video.currentTime);
}

// A person is there: from now on what is fetched is a viewing, and what was fetched has become one.
function attend(event) {
  if (attended || !event.isTrusted) return;
  attended = true;
  if (alone) fetch(place("watched"), { method: "POST", keepalive: true }).catch(() => (attended = false));
}

for (const act of ["pointerdown", "keydown"]) document.addEventListener(act, attend, { capture: true });
video.addEventListener("play", () => (play.hidden = true));
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
video.addEventListener("playing", () => (document.getElementById("trouble").hidden = true));
video.addEventListener("timeupdate", () => (toLive.hidden = status?.state !== "recording" || liveEdge() - video.currentTime < 5));
video.addEventListener("seeking", () => {
  // To what has gone from memory: it is fetched anew.
  if (cut && !holds(video.currentTime) && part(current)) show(part(current), video.currentTime);
});
play.addEventListener("click", () => {
  // What broke off is fed like what goes on: browsers read a growing file to its end before they show anything of it.
  if (Source && part(current)?.sealed === false && !video.currentSrc.startsWith("blob:")) show(part(current));
  video.play().catch(() => {});
});
toLive.addEventListener("click", () => {
  if (liveEdge()) video.currentTime = Math.max(0, liveEdge() - 1);
  video.play().catch(() => {});
});
root.addEventListener("click", (event) => {
  const link = event.target.closest("[data-part]");
  const wanted = link && part(Number(link.dataset.part));
  if (!wanted) return;
  event.preventDefault();
  show(wanted);
  video.play().catch(() => {});
});

if (video.hasAttribute("src")) {
  waiting = false;
  current = Number(root.dataset.first);
  play.hidden = false;
  mark();
}
watch();

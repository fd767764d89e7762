// What was said: text as it comes, words with times, and the files made of them. No DOM here.

const MAX_LINE = 42;
const MAX_CUE_S = 6;

export class Transcript {
  constructor() {
    this.text = "";
    this.words = []; // { word, start, end, endsAt }: endsAt is the word's end in the text
    this.segments = []; // { start, end, text }
    this.settledTo = 0;
    this.segmentedTo = 0;
    this.nSegmented = 0;
    this.base = 0; // where the current recording's text starts
    this.offset = 0; // what is added to its times
  }

  // A further recording goes below the ones before it.
  beginRecording() {
    const last = this.words.at(-1);
    this.offset = last ? Math.max(last.end, ...this.segments.map((s) => s.end)) + 1 : 0;
    if (this.text && !this.text.endsWith("\n")) this.text += "\n";
    this.base = this.settledTo = this.segmentedTo = this.text.length;
  }

  addDelta(delta, words = []) {
    this.text += delta;
    for (const { word, start, end } of words) {
      const at = this.text.indexOf(word, this.settledTo);
      if (at >= 0) this.settledTo = at + word.length;
      this.words.push({
        word,
        start: start + this.offset,
        end: end + this.offset,
        endsAt: this.settledTo,
      });
    }
  }

  addSegment(segment) {
    this.nSegmented += segment.words.length;
    const last = this.words[this.nSegmented - 1];
    const to = last ? last.endsAt : this.settledTo;
    const text = this.text.slice(this.segmentedTo, to).trim();
    this.segmentedTo = Math.max(this.segmentedTo, to);
    const times = { start: segment.start + this.offset, end: segment.end + this.offset };
    const added = { ...times, text };
    this.segments.push(added);
    return added;
  }

  // The end of a recording: whatever is left becomes settled.
  endRecording(end) {
    const text = this.text.slice(this.segmentedTo).trim();
    this.settledTo = this.segmentedTo = this.text.length;
    this.nSegmented = this.words.length;
    if (!text) return null;
    const start = this.segments.at(-1)?.end ?? this.offset;
    const added = { start, end: end + this.offset, text };
    this.segments.push(added);
    return added;
  }

  get openSettled() {
    return this.text.slice(this.segmentedTo, this.settledTo).trimStart();
  }

  get openNewest() {
    const newest = this.text.slice(Math.max(this.settledTo, this.segmentedTo));
    return this.openSettled ? newest : newest.trimStart();
  }

  file(format) {
    if (format === "txt") return this.segments.map((s) => s.text).join("\n") + "\n";
    const cues = cuesOf(this.words);
    const body = cues.map((cue, i) => {
      const times = `${stamp(cue.start, format)} --> ${stamp(cue.end, format)}`;
      const lines = format === "vtt" ? cue.lines.map(escapeVtt) : cue.lines.map(escapeSrt);
      const head = format === "srt" ? `${i + 1}\n` : "";
      return `${head}${times}\n${lines.join("\n")}\n`;
    });
    return (format === "vtt" ? "WEBVTT\n\n" : "") + body.join("\n");
  }
}

function cuesOf(words) {
  const cues = [];
  let cue = null;
  for (const { word, start, end } of words) {
    if (cue && (cue.closed || start - cue.end > 1 || end - cue.start > MAX_CUE_S)) cue = null;
    if (!cue || !place(cue, word)) {
      cue = { start, end, lines: [word], closed: false };
      cues.push(cue);
    }
    cue.end = Math.max(end, cue.start + 0.2);
    cue.closed = /[.!?。！？…]["'”’)\]]*$/.test(word);
  }
  return cues;
}

function place(cue, word) {
  const last = cue.lines.length - 1;
  const longer = `${cue.lines[last]} ${word}`;
  if (longer.length <= MAX_LINE) cue.lines[last] = longer;
  else if (cue.lines.length < 2) cue.lines.push(word);
  else return false;
  return true;
}

function stamp(seconds, format) {
  const ms = Math.round(seconds * 1000);
  const pad = (value, width = 2) => String(value).padStart(width, "0");
  const point = format === "vtt" ? "." : ",";
  const [h, m, s] = [Math.floor(ms / 3600000), Math.floor(ms / 60000) % 60, Math.floor(ms / 1000) % 60];
  return `${pad(h)}:${pad(m)}:${pad(s)}${point}${pad(ms % 1000, 3)}`;
}

const escapeVtt = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
const escapeSrt = (text) => text.replaceAll("-->", "->");

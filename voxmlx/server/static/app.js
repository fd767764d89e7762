// The page: buttons, meters and captions.

import { KeyNeeded, LiveSession, modelOf, setKey, transcribeFile } from "./client.js";
import { Transcript } from "./transcript.js";

const DELAYS_MS = [...Array.from({ length: 15 }, (_, i) => 80 * (i + 1)), 2400];
const TRANSCRIPTION = "conversation.item.input_audio_transcription.";

const $ = (id) => document.getElementById(id);
let transcript = new Transcript();
let running = null; // { stop() } of the recording or upload that runs

const clock = (seconds) => {
  const s = Math.floor(seconds);
  return `${Math.floor(s / 60)}:${String(s % 60).padStart(2, "0")}`;
};

function say(text, isError = false) {
  $("message").textContent = text;
  $("message").classList.toggle("error", isError);
}

function fail(error) {
  if (error.name === "AbortError") return;
  if (error instanceof KeyNeeded) {
    $("key-form").hidden = false;
    $("key").focus();
  }
  say(error.message, true);
}

function render() {
  const captions = $("captions");
  const atEnd = captions.scrollHeight - captions.scrollTop - captions.clientHeight < 60;
  $("open-settled").textContent = transcript.openSettled;
  $("open-newest").textContent = transcript.openNewest;
  const empty = transcript.text.trim() === "";
  $("empty").hidden = !empty;
  for (const button of document.querySelectorAll("footer button")) button.disabled = empty;
  if (atEnd) captions.scrollTop = captions.scrollHeight;
}

function addParagraph(segment) {
  if (!segment?.text) return;
  const time = document.createElement("time");
  time.textContent = clock(segment.start);
  const paragraph = document.createElement("p");
  paragraph.append(time, segment.text);
  $("settled").append(paragraph);
}

function showLevel(peak) {
  // -60 dB to 0 dB over the whole width.
  const level = Math.max(0, Math.min(1, 1 + (20 * Math.log10(peak + 1e-6)) / 60));
  $("level-bar").style.transform = `scaleX(${level.toFixed(3)})`;
  $("level").setAttribute("aria-valuenow", String(Math.round(level * 100)));
}

function showLag(sentS, words) {
  const last = words?.at(-1);
  if (last) $("lag").textContent = `${Math.max(0, sentS - last.end).toFixed(1)} s`;
}

function begin(stop) {
  running = { stop };
  transcript.beginRecording();
  $("microphone").setAttribute("aria-pressed", "true");
  $("microphone-label").textContent = "Stop";
  $("lag").textContent = "–";
  $("delay").disabled = $("file").disabled = true;
}

function end(audioS) {
  running = null;
  addParagraph(transcript.endRecording(audioS));
  $("microphone").setAttribute("aria-pressed", "false");
  $("microphone-label").textContent = "Start microphone";
  $("delay").disabled = $("file").disabled = false;
  showLevel(0);
  render();
}

const delayMs = () => DELAYS_MS[Number($("delay").value)];

async function openMicrophone() {
  if (!navigator.mediaDevices) {
    throw new Error("The browser gives the microphone to https pages and to localhost only.");
  }
  const wanted = { channelCount: 1, echoCancellation: false };
  const stream = await navigator.mediaDevices.getUserMedia({ audio: wanted }).catch((error) => {
    throw new Error(`The microphone cannot be used: ${error.message}`);
  });
  let context = new AudioContext({ sampleRate: 16000 });
  let source;
  try {
    source = context.createMediaStreamSource(stream);
  } catch {
    context = new AudioContext(); // a browser that does not resample microphones
    source = context.createMediaStreamSource(stream);
  }
  await context.audioWorklet.addModule("/static/recorder-worklet.js");
  const recorder = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0 });
  return { stream, context, source, recorder };
}

async function record() {
  say("Waiting for the microphone …");
  const { stream, context, source, recorder } = await openMicrophone();
  let sent = 0;
  let over = () => {};
  const finished = new Promise((resolve) => {
    over = resolve;
  });
  const session = new LiveSession(delayMs(), context.sampleRate, (event) => {
    if (event.type === `${TRANSCRIPTION}delta`) {
      transcript.addDelta(event.delta, event.words);
      showLag(sent / context.sampleRate, event.words);
      render();
    } else if (event.type === `${TRANSCRIPTION}segment`) {
      addParagraph(transcript.addSegment(event));
      render();
    } else if (event.type === `${TRANSCRIPTION}completed`) {
      over(null);
    } else if (event.type === `${TRANSCRIPTION}failed` || event.type === "error") {
      over(new Error(event.error.message));
    }
  });
  session.closed.then((event) => over(new Error(event.reason || "The connection ended.")));
  const release = () => {
    for (const track of stream.getTracks()) track.stop();
    source.disconnect();
    if (context.state !== "closed") context.close();
  };
  recorder.port.onmessage = ({ data }) => {
    if (data.end) {
      if (sent > 0) session.commit();
      else over(null);
      release();
      return;
    }
    sent += data.samples.length;
    showLevel(data.peak);
    $("time").textContent = clock(sent / context.sampleRate);
    session.append(data.samples);
  };
  begin(() => recorder.port.postMessage("end"));
  try {
    await session.opened;
    say("Listening.");
    source.connect(recorder);
    const error = await finished;
    if (error) throw error;
    say("Done.");
  } finally {
    release();
    session.close();
    end(sent / context.sampleRate);
  }
}

async function upload(file) {
  const abort = new AbortController();
  begin(() => abort.abort());
  say(`Transcribing ${file.name} …`);
  let audioS = 0;
  try {
    await transcribeFile(
      file,
      delayMs(),
      (event) => {
        if (event.type === "transcript.text.delta") {
          transcript.addDelta(event.delta, event.words);
          for (const segment of event.segments ?? []) addParagraph(transcript.addSegment(segment));
          audioS = event.words?.at(-1)?.end ?? audioS;
          $("time").textContent = clock(audioS);
          render();
        } else if (event.type === "error") {
          throw new Error(event.error.message);
        }
      },
      abort.signal,
    );
    say("Done.");
  } finally {
    end(audioS);
  }
}

function download(format) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([transcript.file(format)], { type: "text/plain" }));
  link.download = `transcript.${format}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

async function connect() {
  const model = await modelOf();
  $("model").textContent = model.id;
  $("key-form").hidden = true;
  const own = DELAYS_MS.indexOf(model.transcription_delay_ms);
  if (own >= 0) $("delay").value = String(own);
  showDelay();
}

function showDelay() {
  $("delay-value").textContent = `${delayMs()} ms`;
  $("delay").setAttribute("aria-valuetext", `${delayMs()} milliseconds`);
}

$("microphone").addEventListener("click", () => {
  if (running) running.stop();
  else record().catch(fail);
});
$("file").addEventListener("change", () => {
  const [file] = $("file").files;
  $("file").value = "";
  if (file && !running) upload(file).catch(fail);
});
$("delay").addEventListener("input", showDelay);
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setKey($("key").value);
  connect().then(() => say("The key fits."), fail);
});
$("copy").addEventListener("click", () => {
  navigator.clipboard.writeText(transcript.file("txt")).then(() => say("Copied."), fail);
});
$("clear").addEventListener("click", () => {
  if (running) running.stop();
  transcript = new Transcript();
  $("settled").replaceChildren();
  render();
  say("");
});
for (const button of document.querySelectorAll(".download")) {
  button.addEventListener("click", () => download(button.dataset.format));
}
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("dropping", kind === "dragover");
    const file = kind === "drop" ? event.dataTransfer.files[0] : undefined;
    if (file && !running) upload(file).catch(fail);
  });
}
showDelay();
connect().catch(fail);

// The two ways to the server: a WebSocket for the microphone, an upload for files.

let apiKey = sessionStorage.getItem("voxmlx-key") ?? "";

export function setKey(key) {
  apiKey = key;
  sessionStorage.setItem("voxmlx-key", key);
}

export class KeyNeeded extends Error {}

const authorization = () => (apiKey ? { authorization: `Bearer ${apiKey}` } : {});

async function check(response) {
  if (response.ok) return response;
  if (response.status === 401) throw new KeyNeeded("This server wants an API key.");
  const body = await response.json().catch(() => null);
  throw new Error(body?.error?.message ?? `The server answered ${response.status}.`);
}

export async function modelOf() {
  const response = await check(await fetch("/v1/models", { headers: authorization() }));
  return (await response.json()).data[0];
}

// Sends a file and calls on(event) for each server-sent event.
export async function transcribeFile(file, delayMs, on, signal) {
  const form = new FormData();
  form.append("file", file);
  form.append("stream", "true");
  form.append("delay_ms", String(delayMs));
  const options = { method: "POST", body: form, headers: authorization(), signal };
  const response = await check(await fetch("/v1/audio/transcriptions", options));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) if (part.startsWith("data: ")) on(JSON.parse(part.slice(6)));
  }
}

// A live session. Audio is 16-bit PCM at the given rate.
export class LiveSession {
  constructor(delayMs, sampleRate, on) {
    const protocol = location.protocol === "https:" ? "wss" : "ws";
    const url = `${protocol}://${location.host}/v1/realtime?intent=transcription&delay_ms=${delayMs}`;
    const protocols = apiKey ? ["realtime", `openai-insecure-api-key.${apiKey}`] : ["realtime"];
    this.socket = new WebSocket(url, protocols);
    this.opened = new Promise((resolve, reject) => {
      this.socket.onopen = resolve;
      this.socket.onerror = () => reject(new Error("The server cannot be reached or is full."));
    });
    this.closed = new Promise((resolve) => {
      this.socket.onclose = resolve;
    });
    this.socket.onmessage = (message) => on(JSON.parse(message.data));
    this.opened.then(
      () => {
        const input = { format: { type: "audio/pcm", rate: sampleRate }, turn_detection: null };
        this.send({ type: "session.update", session: { type: "transcription", audio: { input } } });
      },
      () => {},
    );
  }

  send(event) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(event));
  }

  append(samples) {
    const bytes = new Uint8Array(samples.buffer, samples.byteOffset, samples.byteLength);
    let binary = "";
    for (const byte of bytes) binary += String.fromCharCode(byte);
    this.send({ type: "input_audio_buffer.append", audio: btoa(binary) });
  }

  commit() {
    this.send({ type: "input_audio_buffer.commit" });
  }

  close() {
    this.socket.close();
  }
}

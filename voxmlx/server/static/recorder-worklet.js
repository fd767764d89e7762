// Runs on the audio thread: gathers the microphone's samples into pieces of 40 ms as 16-bit PCM.

class Recorder extends AudioWorkletProcessor {
  constructor() {
    super();
    this.piece = new Int16Array(Math.round(sampleRate * 0.04));
    this.filled = 0;
    this.peak = 0;
    this.port.onmessage = () => {
      this.send(this.piece.slice(0, this.filled));
      this.port.postMessage({ end: true });
    };
  }

  process(inputs) {
    const channels = inputs[0];
    if (channels.length === 0) return true;
    for (let i = 0; i < channels[0].length; i++) {
      let sum = 0;
      for (const channel of channels) sum += channel[i];
      const sample = Math.max(-1, Math.min(1, sum / channels.length));
      this.peak = Math.max(this.peak, Math.abs(sample));
      this.piece[this.filled++] = Math.round(sample * 32767);
      if (this.filled === this.piece.length) this.send(this.piece.slice());
    }
    return true;
  }

  send(piece) {
    this.filled = 0;
    this.port.postMessage({ samples: piece, peak: this.peak }, [piece.buffer]);
    this.peak = 0;
  }
}

registerProcessor("recorder", Recorder);

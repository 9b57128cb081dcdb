// What the server says, as it says it. Begins again by itself, and tells how old the last word is.

const LATE_S = 8; // The server speaks every 2 s.
const PAUSE_S = [1, 2, 5, 10];

export class Stream {
  constructor(heard, standing) {
    this.heard = heard;
    this.standing = standing;
    this.lastMs = null;
    this.failures = 0;
    this.source = null;
    this.waiting = null;
    setInterval(() => this.tell(), 1000);
    addEventListener("online", () => this.again(0));
  }

  // `service`: NAMESPACE/NAME to hear in full, or null.
  follow(service) {
    this.service = service;
    this.open();
  }

  open() {
    clearTimeout(this.waiting);
    this.waiting = null;
    this.source?.close();
    const query = this.service ? `?service=${encodeURIComponent(this.service)}` : "";
    const source = (this.source = new EventSource(`v1/stream${query}`));
    this.openedMs = performance.now();
    source.onmessage = (event) => {
      if (source !== this.source) return;
      this.lastMs = performance.now();
      this.failures = 0;
      this.heard(JSON.parse(event.data));
      this.tell();
    };
    source.onerror = () => {
      if (source !== this.source) return;
      source.close();
      this.failures += 1;
      this.again(PAUSE_S[Math.min(this.failures, PAUSE_S.length) - 1]);
      this.tell();
    };
  }

  again(pauseS) {
    if (this.failures === 0) return;
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.open(), 1000 * pauseS);
  }

  tell() {
    const nowMs = performance.now();
    const ageS = this.lastMs === null ? null : (nowMs - this.lastMs) / 1000;
    const late = ageS !== null && ageS > LATE_S;
    // A connection that hangs without an error is begun anew.
    if (late && this.waiting === null && nowMs - this.openedMs > 2000 * LATE_S) {
      this.failures += 1;
      this.again(0);
    }
    this.standing({ lost: this.failures > 0 || late, ageS });
  }
}

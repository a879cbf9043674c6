// One player for several sounds of the same text: switch between them at the same place, while they are still being made.
//
// <div class="wand-player" data-rate="16000" data-live="1" data-sides='[{"key", "label", "color", "url"}]'></div>
//
// A live url sends 16-bit samples as they come; another one a whole sound file. All of a side's samples are kept, and
// half a second of the chosen side's is scheduled ahead: a switch cuts that off and goes on with the other side.
(() => {
  const AHEAD = 0.5, TICK = 60, FADE = 0.012;
  let context = null;
  let playing = null;

  class Side {
    constructor(description) {
      Object.assign(this, description);
      this.samples = new Float32Array(0);
      this.length = 0;
      this.done = false;
    }

    append(block) {
      if (this.length + block.length > this.samples.length) {
        const larger = new Float32Array(Math.max(2 * this.samples.length, this.length + block.length, 65536));
        larger.set(this.samples.subarray(0, this.length));
        this.samples = larger;
      }
      this.samples.set(block, this.length);
      this.length += block.length;
    }

    async readLive() {
      const answer = await fetch(this.url);
      if (!answer.ok) throw new Error(`the sound is gone (${answer.status})`);
      const reader = answer.body.getReader();
      let odd = new Uint8Array(0);
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        const bytes = new Uint8Array(odd.length + value.length);
        bytes.set(odd);
        bytes.set(value, odd.length);
        const whole = bytes.length - (bytes.length % 2);
        const view = new DataView(bytes.buffer, 0, whole);
        const block = new Float32Array(whole / 2);
        for (let i = 0; i < block.length; i++) block[i] = view.getInt16(2 * i, true) / 32768;
        this.append(block);
        odd = bytes.slice(whole);
      }
    }

    async readFile(rate) {
      const answer = await fetch(this.url);
      if (!answer.ok) throw new Error(`the sound is gone (${answer.status})`);
      const offline = new OfflineAudioContext(1, 1, rate);
      this.append((await offline.decodeAudioData(await answer.arrayBuffer())).getChannelData(0));
    }
  }

  class Player {
    constructor(element) {
      this.element = element;
      this.rate = Number(element.dataset.rate);
      this.live = element.dataset.live === "1";
      this.sides = JSON.parse(element.dataset.sides).map((side) => new Side(side));
      this.chosen = 0;
      this.position = 0; // in samples: what is heard now
      this.scheduled = 0; // samples handed to the browser
      this.running = false;
      this.problem = "";
      this.nodes = [];
      this.build();
      this.loaded = this.live ? this.load() : null;
      if (this.live && element.dataset.autoplay === "1") this.play();
    }

    load() {
      return Promise.all(
        this.sides.map(async (side) => {
          try {
            await (this.live ? side.readLive() : side.readFile(this.rate));
          } catch (problem) {
            this.problem = String(problem.message || problem);
          }
          side.done = true;
          this.draw();
        })
      );
    }

    build() {
      this.element.innerHTML = "";
      const make = (tag, name, parent) => {
        const made = document.createElement(tag);
        made.className = name;
        parent.append(made);
        return made;
      };
      const bar = make("div", "wand-bar", this.element);
      this.button = make("button", "wand-play", bar);
      this.button.type = "button";
      this.button.addEventListener("click", () => (this.running ? this.pause() : this.play()));
      this.slider = make("input", "wand-seek", bar);
      Object.assign(this.slider, { type: "range", min: 0, max: 1, step: "any", value: 0 });
      this.slider.setAttribute("aria-label", "Place in the sound, in seconds");
      this.slider.addEventListener("input", () => this.seek(Number(this.slider.value) * this.rate));
      this.time = make("span", "wand-time", bar);
      const choices = make("div", "wand-choices", this.element);
      choices.setAttribute("role", "group");
      choices.setAttribute("aria-label", "Which one is heard; the place stays");
      this.choices = this.sides.map((side, index) => {
        const button = make("button", "wand-choice", choices);
        button.type = "button";
        button.dataset.side = side.key;
        const mark = make("i", "", button);
        mark.style.background = side.color;
        button.append(side.label);
        button.addEventListener("click", () => this.choose(index));
        return button;
      });
      this.note = make("span", "wand-note", choices);
      this.draw();
    }

    say(words) {
      if (this.note.textContent !== words) this.note.textContent = words;
    }

    get side() {
      return this.sides[this.chosen];
    }

    async play() {
      if (playing && playing !== this) playing.pause();
      playing = this;
      this.running = true;
      if (!context || context.sampleRate !== this.rate) {
        if (context) context.close();
        context = new AudioContext({ sampleRate: this.rate });
      }
      context.resume();
      this.draw();
      if (!this.loaded) this.loaded = this.load();
      if (this.side.done && this.position >= this.side.length) this.position = 0;
      this.restart();
      clearInterval(this.timer);
      this.timer = setInterval(() => this.tick(), TICK);
    }

    pause() {
      this.follow();
      this.cut();
      this.running = false;
      clearInterval(this.timer);
      this.draw();
    }

    seek(position) {
      this.follow();
      this.cut();
      this.position = Math.min(Math.max(0, position), this.side.length);
      this.restart();
      this.draw();
    }

    choose(index) {
      this.follow();
      this.cut();
      this.chosen = index;
      if (this.side.done) this.position = Math.min(this.position, this.side.length);
      if (!this.running) this.play();
      else this.restart();
      this.draw();
    }

    restart() {
      this.scheduled = Math.floor(this.position);
      this.origin = null; // the context's time at which sample 0 would have been heard
    }

    cut() {
      for (const { source, gain } of this.nodes) {
        gain.gain.setTargetAtTime(0, context.currentTime, FADE / 3);
        source.stop(context.currentTime + FADE);
      }
      this.nodes = [];
    }

    follow() {
      if (!this.running || this.origin == null || !context) return;
      const heard = (context.currentTime - this.origin) * this.rate;
      this.position = Math.min(Math.max(this.position, heard), this.scheduled);
    }

    tick() {
      if (!this.element.isConnected) return this.pause();
      this.follow();
      const side = this.side;
      if (this.origin != null && this.position >= this.scheduled) this.origin = null; // the sound ran out
      if (side.done && this.position >= side.length && (side.length || !this.live)) return this.pause();
      if (side.done && !side.length) return this.pause();
      while (context.state === "running" && this.scheduled < side.length) {
        if (this.origin == null) this.origin = context.currentTime + 0.03 - this.scheduled / this.rate;
        const start = this.origin + this.scheduled / this.rate;
        if (start > context.currentTime + AHEAD) break;
        const end = Math.min(side.length, this.scheduled + Math.ceil(AHEAD * this.rate));
        const buffer = context.createBuffer(1, end - this.scheduled, this.rate);
        buffer.copyToChannel(side.samples.subarray(this.scheduled, end), 0);
        const source = context.createBufferSource();
        const gain = context.createGain();
        source.buffer = buffer;
        source.connect(gain).connect(context.destination);
        const node = { source, gain };
        source.onended = () => (this.nodes = this.nodes.filter((other) => other !== node));
        source.start(Math.max(start, context.currentTime));
        this.nodes.push(node);
        this.scheduled = end;
      }
      this.draw();
    }

    draw() {
      const side = this.side;
      const known = Math.max(
        ...this.sides.map((each) => each.length || Number(each.seconds || 0) * this.rate),
        this.position
      );
      const clock = (samples) => {
        const seconds = samples / this.rate;
        return `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
      };
      const name = this.running ? "Pause" : "Play";
      if (this.button.getAttribute("aria-label") !== name) {
        this.button.setAttribute("aria-label", name);
        this.button.textContent = this.running ? "❚❚" : "▶";
      }
      this.slider.max = Math.max(known, 1) / this.rate;
      if (document.activeElement !== this.slider || this.running) this.slider.value = this.position / this.rate;
      this.time.textContent = known ? `${clock(this.position)} / ${clock(known)}` : "";
      this.choices.forEach((button, index) => button.setAttribute("aria-pressed", String(index === this.chosen)));
      const waits = this.running && !side.done && this.position >= side.length;
      this.say(this.problem || (waits ? "waiting for the sound …" : ""));
      this.element.dataset.heard = (this.position / this.rate).toFixed(2);
      this.element.dataset.known = this.sides.map((each) => (each.length / this.rate).toFixed(2)).join(" ");
    }
  }

  function adopt() {
    for (const element of document.querySelectorAll(".wand-player:not([data-ready])")) {
      element.dataset.ready = "1";
      element.player = new Player(element);
    }
  }

  // Sound of an earlier result: its button puts a player in the place that it names.
  document.addEventListener("click", (event) => {
    const button = event.target.closest && event.target.closest(".wand-again");
    if (!button) return;
    const place = button.closest("li").querySelector(".wand-place");
    place.innerHTML = "";
    const player = document.createElement("div");
    player.className = "wand-player";
    Object.assign(player.dataset, { rate: button.dataset.rate, live: "1", autoplay: "1", sides: button.dataset.sides });
    place.append(player);
  });

  // On a phone the result is below the controls.
  document.addEventListener("click", (event) => {
    const button = event.target.closest && event.target.closest("button[id$='-start']");
    if (!button) return;
    const status = document.getElementById(button.id.replace(/-start$/, "-status"));
    const { top } = status.getBoundingClientRect();
    if (top < 0 || top > 0.7 * innerHeight) status.scrollIntoView({ block: "start" });
  });

  new MutationObserver(adopt).observe(document.documentElement, { childList: true, subtree: true });
  document.addEventListener("DOMContentLoaded", adopt);
  adopt();
})();

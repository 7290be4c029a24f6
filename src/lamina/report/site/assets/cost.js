/* What an architecture costs in a setting, from its profile: the arithmetic of arch/measure.py, arch/cost.py and
   machine/roofline.py, under the same names. Units: bytes, FLOPs (a multiply-accumulate is 2), tokens, seconds.
   A test compares every number with Python's. Sequences here are text alone: no cross-attended tokens. */
(function (root) {
  "use strict";

  const CHUNK = 64; // tokens that a recurrence takes at a time
  const PROMPT_CHUNK = 2048; // tokens of a prompt that are computed at once
  const sum = (items, measure) => (items || []).reduce((total, item) => total + measure(item), 0);

  // -- arch/measure.py: pairs of queries and keys, work, and what is kept

  /* Pairs of a query and a key it sees: `tokens` causal queries after `context` earlier tokens. */
  function seen(tokens, context, window) {
    if (window === undefined) return tokens * context + (tokens * (tokens + 1)) / 2;
    const growing = Math.max(0, Math.min(tokens, window - context));
    return growing * context + (growing * (growing + 1)) / 2 + (tokens - growing) * window;
  }

  function withinChunks(length, chunk) {
    return Math.floor(length / chunk) * seen(chunk, 0) + seen(length % chunk, 0);
  }

  function strided(length, pairs) {
    const whole = Math.floor((length + 1) / pairs.stride), rest = (length + 1) % pairs.stride;
    const window = pairs.window === undefined ? Infinity : pairs.window;
    const full = Math.min(whole - 1, window);
    const below = whole ? pairs.stride * ((full * (full + 1)) / 2 + (whole - 1 - full) * full) : 0;
    return below + rest * Math.min(whole, window);
  }

  function countPairs(pairs, tokens, context, causal) {
    if (causal && (pairs.after || pairs.until !== undefined)) {
      const start = Math.max(context, pairs.after || 0);
      const end = Math.min(context + tokens, pairs.until === undefined ? Infinity : pairs.until);
      return countPairs({ ...pairs, after: 0, until: undefined }, Math.max(0, end - start), start, causal);
    }
    if (!causal) return tokens * (context + tokens);
    if (pairs.chunk) return withinChunks(context + tokens, pairs.chunk) - withinChunks(context, pairs.chunk);
    if (pairs.stride > 1) return strided(context + tokens, pairs) - strided(context, pairs);
    return seen(tokens, context, pairs.window);
  }

  function workFlops(work, tokens, context, causal) {
    if (!work) return 0;
    const first = context ? 0 : work.once || 0;
    const pairs = sum(work.pairs, (p) => p.flops * countPairs(p, tokens, context, causal));
    const ordered = tokens ? sum(work.orders, (order) => cheaper(order, tokens, context, causal)) : 0;
    const chunked = (work.chunked || 0) * chunkPairs(tokens) + (work.crossed || 0) * crossedPairs(tokens);
    return first + tokens * work.token + pairs + ordered + chunked;
  }

  /* Pairs of tokens in one chunk of a recurrence; a token that is alone in its chunk makes none. */
  function chunkPairs(tokens) {
    const rest = tokens % CHUNK;
    return Math.floor(tokens / CHUNK) * CHUNK ** 2 + (rest > 1 ? rest ** 2 : 0);
  }

  /* Those of two different tokens, each once. */
  function crossedPairs(tokens) {
    const rest = tokens % CHUNK;
    return (Math.floor(tokens / CHUNK) * CHUNK * (CHUNK - 1) + rest * (rest - 1)) / 2;
  }

  /* Sums that can be taken in two orders: the cheaper, were no key hidden. */
  function cheaper(order, tokens, context, causal) {
    const bounded = order.until !== undefined && context + tokens > order.until;
    const queries = bounded ? Math.min(tokens, Math.max(0, order.until - context)) : tokens;
    const held = context + queries, pairs = countPairs({}, queries, context, causal);
    const one = queries * (order.new + held * order.new_pair);
    const other = held * (order.seen + queries * order.seen_pair);
    const taken = one < other ? queries * order.new + pairs * order.new_pair : held * order.seen + pairs * order.seen_pair;
    return taken + (tokens - queries) * order.new;
  }

  function entries(kept, context) {
    if (kept.each === "sequence") return 1;
    if (kept.each === "memory") return 0;
    const whole = Math.floor(context / (kept.stride || 1));
    return kept.window ? Math.min(whole, kept.window) : whole;
  }

  const entryBytes = (kept, itemsize) => kept.numbers * (kept.fixed || itemsize);
  const keptBytes = (kept, context, itemsize) => Math.floor(entries(kept, context) * entryBytes(kept, itemsize));

  // -- arch/cost.py: a profile, priced

  /* Setting: context, batch, plan and cache (places in the choices), device (a place, too) and count of devices. */
  function price(profile, setting, choices) {
    const { context, batch } = setting;
    const itemsize = choices.caches[setting.cache].bits / 8;
    const total = (measure) => Math.ceil(sum(profile.lines, measure));
    const always = (line) => (line.always ? line.always[setting.plan] : 0);
    const routed = (line) => (line.routed ? line.routed[setting.plan] : 0);
    const times = (line) => line.times ?? 1;
    const runs = (line) => line.runs ?? 1;

    const weights = (line) => times(line) * (always(line) + routed(line));
    const state = (line) => batch * runs(line) * sum(line.keeps, (kept) => keptBytes(kept, context, itemsize));

    function flops(line, tokens, earlier) {
      const causal = !profile.bidirectional;
      if (!causal) [tokens, earlier] = [tokens + earlier, 0];
      if (line.group === "mixers" || line.group === "feed_forwards") tokens += profile.prefix;
      const decoding = causal && tokens === 1 && earlier && line.decoding;
      return runs(line) * workFlops(decoding ? line.decoding : line.prefill, tokens, earlier, causal);
    }

    const prefill = (line) => batch * flops(line, line.kind === "head" ? Math.min(1, context) : context, 0);
    const decode = (line) => batch * flops(line, 1, context);

    /* Bytes of weights that so many tokens, computed at once, read: of experts those they reach, of tables rows. */
    function read(line, tokens) {
      if (line.group === "encoder") return 0;
      const reached = line.experts ? 1 - Math.pow(1 - line.chosen / line.experts, tokens) : 1;
      const skipped = sum(line.tables, (t) => t.bytes[setting.plan] * (1 - Math.min(1, tokens * t.share)));
      return Math.max(times(line), runs(line)) * (always(line) - skipped + reached * routed(line));
    }

    const held = (line) => (line.path === "history" ? [] : [...(line.keeps || []), ...(line.borrows || [])]);
    const stateRead = (line) =>
      runs(line) * sum(held(line), (k) => Math.min(entries(k, context), k.read || Infinity) * entryBytes(k, itemsize));
    const written = (line) =>
      runs(line) * sum(line.keeps, (k) => (k.each === "memory" ? 0 : entryBytes(k, itemsize) / (k.stride || 1)));

    const weightBytes = total(weights);
    const stateBytes = total(state);
    const prefillFlops = total(prefill);
    const decodeFlops = total(decode);
    const moved = total((line) => read(line, batch)) + batch * total(stateRead) + batch * total(written);
    const device = choices.devices[setting.device];
    const plan = choices.plans[setting.plan];

    /* What is computed on the way: the widest part over a chunk of a prompt, and the last logits. */
    const chunk = Math.min(batch * context, Math.max(PROMPT_CHUNK, batch));
    const workingBytes = Math.ceil(
      chunk * (2 * profile.width + profile.widest) * Math.max(2, plan.computeBits / 8) + 4 * batch * profile.vocab
    );
    const neededBytes = weightBytes + stateBytes + workingBytes;

    /* Lower bounds on time: the FLOPs at the peak rate, or the bytes at full bandwidth, whichever takes longer. */
    function bounds() {
      const rate = setting.count * device.rates[plan.products], bandwidth = setting.count * device.bandwidth;
      const reading = total((line) => read(line, batch * Math.max(context, 1))) + stateBytes;
      const first = [prefillFlops / rate, reading / bandwidth], next = [decodeFlops / rate, moved / bandwidth];
      const limit = (pair) => (pair[0] >= pair[1] ? "compute" : "bandwidth");
      return { first: Math.max(...first), firstLimit: limit(first), next: Math.max(...next), nextLimit: limit(next) };
    }

    /* A record for each part; the numbers of each column add up to its total. */
    function breakdown() {
      return profile.lines.map((line) => ({
        path: line.path,
        mechanism: line.kind,
        group: line.group,
        times: times(line),
        parameters: line.parameters,
        active: line.active === undefined ? line.parameters : line.active,
        weightBytes: weights(line),
        stateBytes: state(line),
        prefillFlops: prefill(line),
        decodeFlops: decode(line),
      }));
    }

    return {
      weightBytes, stateBytes, workingBytes, neededBytes, prefillFlops, decodeFlops, movedBytes: moved,
      devicesNeeded: Math.max(1, Math.ceil(neededBytes / device.memory)), bounds: bounds(), breakdown,
    };
  }

  root.Lamina = Object.assign(root.Lamina || {}, { price });
})(typeof window === "undefined" ? globalThis : window);

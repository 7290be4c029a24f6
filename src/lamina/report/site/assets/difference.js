/* Where two architectures differ, by path, as arch/diff.py says it: fields of the whole, and of blocks, those in
   which the same thing differs folded. Nothing here touches the page. */
(function (root) {
  "use strict";

  function compareFields(left, right) {
    const [a, b] = [new Map(left), new Map(right)];
    return [...new Set([...a.keys(), ...b.keys()])]
      .filter((path) => a.get(path) !== b.get(path))
      .map((path) => ({ path, left: a.get(path), right: b.get(path) }));
  }

  const fieldsOf = (stack, kind) => [...stack.shared, ...stack.kinds[kind]];
  const NONE = { shared: [], kinds: [], places: [] };

  /* Pairs of kinds of blocks that stand at the same places: [{ left, right, layers }], a kind null where one ends. */
  function meetings(a, b) {
    const found = new Map();
    for (let i = 0; i < Math.max(a.places.length, b.places.length); i += 1) {
      const [left, right] = [a, b].map((side) => (i < side.places.length ? side.places[i] : null));
      const key = `${left}|${right}`;
      if (!found.has(key)) found.set(key, { left, right, layers: [] });
      found.get(key).layers.push(i);
    }
    return [...found.values()];
  }

  /* What differs in a stack of blocks: { stack, path, left, right, layers }. */
  function inStack(stack, a, b) {
    const folded = new Map();
    for (const { left, right, layers } of meetings(a, b)) {
      const found = left === null || right === null
        ? [{ path: "", left: left === null ? undefined : "a block", right: right === null ? undefined : "a block" }]
        : compareFields(fieldsOf(a, left), fieldsOf(b, right));
      for (const one of found) {
        const key = JSON.stringify([one.path, one.left, one.right]);
        if (!folded.has(key)) folded.set(key, { stack, ...one, layers: [] });
        folded.get(key).layers.push(...layers);
      }
    }
    return [...folded.values()].map((one) => ({ ...one, layers: one.layers.sort((x, y) => x - y) }));
  }

  /* Every difference; `stack` is null outside of blocks, and a side undefined that lacks what the other has. */
  function differences(a, b) {
    const stacks = [...new Set([...Object.keys(a.stacks), ...Object.keys(b.stacks)])];
    return [...compareFields(a.top, b.top).map((one) => ({ stack: null, ...one, layers: null })),
      ...stacks.flatMap((stack) => inStack(stack, a.stacks[stack] || NONE, b.stacks[stack] || NONE))];
  }

  root.Lamina = Object.assign(root.Lamina || {}, { difference: { differences, meetings } });
})(typeof window === "undefined" ? globalThis : window);

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

  const fieldsOf = (side, kind) => [...side.shared, ...side.kinds[kind].fields];

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

  /* Every difference: { path, left, right, layers }, layers null outside of blocks, undefined what one side lacks. */
  function differences(a, b) {
    const folded = new Map();
    for (const { left, right, layers } of meetings(a, b)) {
      const found = left === null || right === null
        ? [{ path: "", left: left === null ? undefined : a.kinds[left].label, right: right === null ? undefined : b.kinds[right].label }]
        : compareFields(fieldsOf(a, left), fieldsOf(b, right));
      for (const one of found) {
        const key = JSON.stringify([one.path, one.left, one.right]);
        if (!folded.has(key)) folded.set(key, { ...one, layers: [] });
        folded.get(key).layers.push(...layers);
      }
    }
    const inBlocks = [...folded.values()].map((one) => ({ ...one, layers: one.layers.sort((x, y) => x - y) }));
    return [...compareFields(a.top, b.top).map((one) => ({ ...one, layers: null })), ...inBlocks];
  }

  root.Lamina = Object.assign(root.Lamina || {}, { difference: { differences, meetings } });
})(typeof window === "undefined" ? globalThis : window);

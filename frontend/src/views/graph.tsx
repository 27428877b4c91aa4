/** Nodes and weighted edges: zoom, pan, pin, group, prune; and all edges in a table. */

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { hasNegative, largest } from "../colours";
import { Legend } from "../parts/legend";
import { Folded, Sortable } from "../parts/sortable";
import type { GraphResult } from "../result";
import { exact, fourDigits } from "../text";
import { BOX, curve, depths, grouped, MARGIN, nameOf, place, type Placed, TALL } from "./layout";

interface Sight {
  x: number;
  y: number;
  zoom: number;
}

export function GraphView({ result }: { result: GraphResult }) {
  const total = result.weights.length;
  const [count, setCount] = useState(Math.min(40, total));
  const [pinned, setPinned] = useState<Set<string>>(new Set());
  const [groups, setGroups] = useState<Record<string, string>>({});
  const [moved, setMoved] = useState<Record<string, Placed>>({});
  const [chosen, setChosen] = useState<Set<string>>(new Set());
  const [seen, setSight] = useState<Sight | null>(null);
  const [room, setRoom] = useState(1000);
  const [focus, setFocus] = useState<string | null>(null);
  const drag = useRef<{ x: number; y: number; node: string | null; moved: boolean } | null>(null);
  const svg = useRef<SVGSVGElement>(null);
  const edges = useMemo(() => grouped(result, count, groups, pinned), [result, count, groups, pinned]);
  const depth = useMemo(() => depths(result), [result]);
  const automatic = useMemo(() => place(result, edges, depth, groups, [...pinned].filter((node) => !(node in groups))), [edges, groups, pinned]);
  useEffect(() => {
    if (svg.current === null) return;
    const watch = new ResizeObserver(([entry]) => setRoom(Math.max(200, entry!.contentRect.width)));
    watch.observe(svg.current);
    return () => watch.disconnect();
  }, []);
  if (total === 0) return <p class="quiet">{result.nodes.length} nodes, no edges.</p>;

  const at = (node: string) => moved[node] ?? automatic.get(node)!;
  const name = (node: string) => {
    if (!node.startsWith("g:")) return nameOf(result.nodes[Number(node)]);
    const members = Object.keys(groups).filter((one) => groups[one] === node);
    return `${members.length} nodes: ${members.map((one) => nameOf(result.nodes[Number(one)])).join(", ")}`;
  };
  const nodes = [...automatic.keys()];
  const scale = largest(edges.map((edge) => edge.weight));
  const width = Math.max(...nodes.map((node) => at(node).x)) + BOX + MARGIN;
  const height = Math.max(...nodes.map((node) => at(node).y)) + TALL + MARGIN;
  const tall = Math.max(220, Math.min(height, Math.round(innerHeight * 0.7)));
  const whole: Sight = { x: 0, y: 0, zoom: Math.min(1.2, room / width, tall / height) };
  // At first the text is readable and the end is in sight, where the answer is.
  const readable = Math.max(whole.zoom, 0.85);
  const sight = seen ?? { x: Math.max(0, width - room / readable), y: Math.max(0, (height - tall / readable) / 2), zoom: readable };
  const [shownWidth, shownHeight] = [room / sight.zoom, tall / sight.zoom];
  const zoomBy = (factor: number) => {
    const zoom = Math.max(0.1, Math.min(6, sight.zoom * factor));
    setSight({ zoom, x: sight.x + (shownWidth - room / zoom) / 2, y: sight.y + (shownHeight - tall / zoom) / 2 });
  };
  const toggle = (set: Set<string>, node: string) => {
    const next = new Set(set);
    if (!next.delete(node)) next.add(node);
    return next;
  };
  const group = () => {
    const key = `g:${Object.keys(groups).length}.${[...chosen].join(".")}`;
    const members = [...chosen].flatMap((node) => (node.startsWith("g:") ? Object.keys(groups).filter((one) => groups[one] === node) : [node]));
    setGroups({ ...groups, ...Object.fromEntries(members.map((node) => [node, key])) });
    setChosen(new Set());
  };
  const ungroup = () => {
    setGroups(Object.fromEntries(Object.entries(groups).filter(([, key]) => !chosen.has(key))));
    setChosen(new Set());
  };
  const key = (event: KeyboardEvent) => {
    const step = 60 / sight.zoom;
    const moves: Record<string, Partial<Sight>> = {
      ArrowLeft: { x: sight.x - step }, ArrowRight: { x: sight.x + step }, ArrowUp: { y: sight.y - step }, ArrowDown: { y: sight.y + step },
      "0": whole,
    };
    if (moves[event.key]) setSight({ ...sight, ...moves[event.key] });
    else if (event.key === "+" || event.key === "=") zoomBy(1.25);
    else if (event.key === "-") zoomBy(0.8);
    else return;
    event.preventDefault();
  };
  const nodeKey = (node: string) => (event: KeyboardEvent) => {
    if (event.key === "Enter" || event.key === " ") setChosen(toggle(chosen, node));
    else if (event.key === "p") setPinned(toggle(pinned, node));
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  const move = (event: PointerEvent) => {
    if (drag.current === null) return;
    const unit = 1 / sight.zoom;
    const [dx, dy] = [(event.clientX - drag.current.x) * unit, (event.clientY - drag.current.y) * unit];
    if (Math.abs(dx) + Math.abs(dy) < 3 && !drag.current.moved) return;
    const { node } = drag.current;
    drag.current = { x: event.clientX, y: event.clientY, node, moved: true };
    if (node === null) setSight({ ...sight, x: sight.x - dx, y: sight.y - dy });
    else setMoved({ ...moved, [node]: { x: at(node).x + dx, y: at(node).y + dy } });
  };
  const near = focus === null ? null : new Set([focus, ...edges.flatMap((e) => (e.source === focus ? [e.target] : e.target === focus ? [e.source] : []))]);
  const anyGroup = [...chosen].some((node) => node.startsWith("g:"));
  return (
    <div class="graph-view">
      <div class="tools" role="group" aria-label="Graph tools">
        <label>Strongest edges <input type="range" min={1} max={Math.min(total, 400)} value={count} onInput={(event) => setCount(Number(event.currentTarget.value))} /> <output>{count} of {total}</output></label>
        <span class="buttons">
          <button type="button" onClick={() => zoomBy(1.25)} aria-label="Zoom in">+</button>
          <button type="button" onClick={() => zoomBy(0.8)} aria-label="Zoom out">−</button>
          <button type="button" onClick={() => setSight(whole)}>Fit</button>
          <button type="button" disabled={chosen.size === 0} onClick={() => setPinned([...chosen].reduce(toggle, pinned))}>Pin</button>
          <button type="button" disabled={chosen.size < 2} onClick={group}>Group</button>
          <button type="button" disabled={!anyGroup} onClick={ungroup}>Ungroup</button>
        </span>
      </div>
      <svg ref={svg} class="graph" role="group" tabindex={0} aria-label={`Graph of ${nodes.length} nodes and ${edges.length} edges. Arrow keys pan, plus and minus zoom, Tab goes through the nodes; Enter chooses one, P pins it.`}
        viewBox={`${sight.x} ${sight.y} ${shownWidth} ${shownHeight}`} style={{ height: `${tall}px` }} onKeyDown={key}
        onWheel={(event) => {
          if (!event.ctrlKey && !event.metaKey) return;
          event.preventDefault();
          zoomBy(event.deltaY < 0 ? 1.15 : 0.87);
        }}
        onPointerDown={(event) => {
          const node = (event.target as Element).closest<SVGGElement>("[data-node]")?.dataset.node ?? null;
          drag.current = { x: event.clientX, y: event.clientY, node, moved: false };
        }}
        onPointerMove={move}
        onPointerUp={() => {
          const d = drag.current;
          drag.current = null;
          if (d?.node && !d.moved) setChosen(toggle(chosen, d.node));
        }}
        onPointerLeave={() => {
          drag.current = null;
        }}>
        {[...edges].sort((a, b) => Math.abs(a.weight) - Math.abs(b.weight)).map((edge) => (
          <path key={`${edge.source}>${edge.target}`} class={`edge ${edge.weight >= 0 ? "up" : "down"} ${near && focus !== edge.source && focus !== edge.target ? "faint" : ""}`}
            stroke-width={(0.6 + 4 * (scale ? Math.min(1, Math.abs(edge.weight) / scale) : 0)).toFixed(1)} d={curve(at(edge.source), at(edge.target))}>
            <title>{`${name(edge.source)} → ${name(edge.target)}: ${exact(edge.weight)}`}</title>
          </path>
        ))}
        {nodes.map((node) => {
          const { x, y } = at(node);
          const full = name(node);
          const short = node.startsWith("g:") ? full.split(":")[0]! : full.length > 17 ? `${full.slice(0, 16)}…` : full;
          return (
            <g key={node} data-node={node} role="button" tabindex={0} aria-pressed={chosen.has(node)} aria-label={`${full}${pinned.has(node) ? ", pinned" : ""}`}
              class={`node ${chosen.has(node) ? "chosen" : ""} ${pinned.has(node) ? "pinned" : ""} ${near && !near.has(node) ? "faint" : ""}`} onKeyDown={nodeKey(node)}
              onPointerEnter={() => setFocus(node)} onPointerLeave={() => setFocus(null)} onFocus={() => setFocus(node)} onBlur={() => setFocus(null)}>
              <title>{full}</title>
              <rect x={x} y={y} width={BOX} height={TALL} rx={5} />
              {pinned.has(node) && <circle cx={x + BOX - 8} cy={y + 8} r={3} />}
              <text class="mid" x={x + BOX / 2} y={y + 17}>{short}</text>
            </g>
          );
        })}
      </svg>
      <Legend scale={scale} both={hasNegative(edges.map((edge) => edge.weight))} unit={result.unit} sign="" />
      <p class="quiet">{result.nodes.length} nodes, {total} edges. Solid orange raises, dashed blue lowers; drag to move, Ctrl and wheel to zoom.{pinned.size > 0 && " Pinned nodes keep their edges when the graph is pruned."}</p>
      <Folded summary={`${total.toLocaleString("en")} edges`}>
        {() => (
          <Sortable caption="Edges" columns={[{ name: "from" }, { name: "to" }, { name: result.unit || "weight", coloured: true }]}
            rows={Array.from(result.weights, (weight, i) => ({ weight, i })).sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight)).slice(0, 5000)
              .map(({ weight, i }) => [nameOf(result.nodes[result.sources[i]!]), nameOf(result.nodes[result.targets[i]!]), Number.isFinite(weight) ? weight : null])} />
        )}
      </Folded>
      {chosen.size > 0 && <p class="readout" aria-live="polite">Chosen: {[...chosen].map((node) => `${name(node)} (${fourDigits(edges.filter((e) => e.source === node || e.target === node).length)} edges)`).join("; ")}</p>}
    </div>
  );
}

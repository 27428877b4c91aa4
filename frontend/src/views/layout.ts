/** Where the nodes of a graph stand: columns by layer where known, else by depth; rows by position. */

import type { GraphResult } from "../result";
import { label } from "../text";

export const [COLUMN, ROW, BOX, TALL, MARGIN] = [186, 48, 124, 26, 30];

export interface Edge {
  source: string;
  target: string;
  weight: number;
}

export interface Placed {
  x: number;
  y: number;
}

export function nameOf(node: Record<string, unknown> | undefined): string {
  return label(node?.label ?? node?.id ?? "?");
}

/** The strongest edges, their ends renamed by group; parallel edges of a group are added up. */
export function grouped(result: GraphResult, count: number, groups: Record<string, string>, pinned: Set<string>): Edge[] {
  const order = Array.from(result.weights, (weight, i) => ({ weight, i })).sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight));
  const kept = order.filter(({ i }, rank) => rank < count || (rank < 4 * count && (pinned.has(String(result.sources[i])) || pinned.has(String(result.targets[i])))));
  const edges = new Map<string, Edge>();
  for (const { weight, i } of kept) {
    const [source, target] = [String(result.sources[i]), String(result.targets[i])].map((node) => groups[node] ?? node) as [string, string];
    if (source === target && groups[String(result.sources[i])] !== undefined) continue;
    const key = `${source}>${target}`;
    const known = edges.get(key);
    if (known) known.weight += weight;
    else edges.set(key, { source, target, weight });
  }
  return [...edges.values()];
}

/** The depth of every node along all edges, so that pruning moves nothing sideways. */
export function depths(result: GraphResult): number[] {
  const count = result.nodes.length;
  const depth = new Array<number>(count).fill(0);
  for (let round = 0; round < count; round++) {
    let changed = false;
    for (let e = 0; e < result.weights.length; e++) {
      const [source, target] = [result.sources[e]!, result.targets[e]!];
      const next = depth[source]! + 1;
      if (source !== target && next > depth[target]! && next < count) {
        depth[target] = next;
        changed = true;
      }
    }
    if (!changed) break;
  }
  return depth;
}

function columnOf(result: GraphResult, nodes: string[], depth: number[], groups: Record<string, string>): Map<string, number> {
  const members = (node: string) => (node.startsWith("g:") ? Object.keys(groups).filter((one) => groups[one] === node) : [node]);
  const layer = (node: string) => Math.max(...members(node).map((one) => {
    const found = result.nodes[Number(one)]?.layer;
    return typeof found === "number" ? found : Number.NaN;
  }));
  const layers = nodes.map(layer);
  if (layers.every(Number.isFinite)) {
    const order = [...new Set(layers)].sort((a, b) => a - b);
    return new Map(nodes.map((node, i) => [node, order.indexOf(layers[i]!)]));
  }
  const columns = nodes.map((node) => Math.max(...members(node).map((one) => depth[Number(one)]!)));
  const order = [...new Set(columns)].sort((a, b) => a - b);
  return new Map(nodes.map((node, i) => [node, order.indexOf(columns[i]!)]));
}

export function place(result: GraphResult, edges: Edge[], depth: number[], groups: Record<string, string>, extra: string[]): Map<string, Placed> {
  const nodes = [...new Set([...edges.flatMap((edge) => [edge.source, edge.target]), ...extra])];
  const columns = columnOf(result, nodes, depth, groups);
  const position = (node: string) => {
    const found = result.nodes[Number(node)]?.position;
    return typeof found === "number" ? found : 0;
  };
  const byColumn = new Map<number, string[]>();
  const sorted = nodes.sort((a, b) => columns.get(a)! - columns.get(b)! || position(a) - position(b) || Number(a) - Number(b));
  for (const node of sorted) byColumn.set(columns.get(node)!, [...(byColumn.get(columns.get(node)!) ?? []), node]);
  const tallest = Math.max(1, ...[...byColumn.values()].map((list) => list.length));
  const found = new Map<string, Placed>();
  for (const [column, list] of byColumn) {
    list.forEach((node, i) => found.set(node, { x: MARGIN + column * COLUMN, y: MARGIN + (i + (tallest - list.length) / 2) * ROW }));
  }
  return found;
}

export function curve(a: Placed, b: Placed): string {
  const [x0, y0, x1, y1] = [a.x + BOX, a.y + TALL / 2, b.x, b.y + TALL / 2];
  const bend = Math.max(30, Math.abs(x1 - x0) / 2);
  const bow = Math.abs(b.x - a.x) > COLUMN && Math.abs(y1 - y0) < ROW / 2 ? -0.75 * ROW : 0;
  return `M${x0} ${y0.toFixed(0)}C${(x0 + bend).toFixed(0)} ${(y0 + bow).toFixed(0)} ${(x1 - bend).toFixed(0)} ${(y1 + bow).toFixed(0)} ${x1} ${y1.toFixed(0)}`;
}

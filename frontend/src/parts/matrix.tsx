/** Two axes as a grid on a canvas. Only what is in sight is drawn, so that 4,000 columns scroll as 40 do. */

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { colours, css, level, LEVELS, type Palette, table } from "../colours";
import { exact, numberFormat, word } from "../text";

export interface MatrixProps {
  name: string;
  rows: string[];
  columns: string[];
  rowAxis: string;
  columnAxis: string;
  /** In C order. */
  values: ArrayLike<number>;
  scale: number;
  words?: string[] | null;
  error?: ArrayLike<number> | null;
  selected?: readonly [number, number] | null;
  /** A column that another panel marks. */
  marked?: number | null;
  signed: boolean;
  onPick?: (row: number, column: number) => void;
}

const NUMBERED = 1500;
const FONT = '11px ui-sans-serif, system-ui, "Segoe UI", Roboto, "Noto Sans", sans-serif';

interface Frame {
  cellWidth: number;
  cellHeight: number;
  left: number;
  top: number;
  width: number;
  height: number;
  inside: "words" | "numbers" | "none";
}

function measure(p: MatrixProps, available: number, zoom: number): Frame {
  const count = p.rows.length * p.columns.length;
  const longest = (labels: string[]) => labels.slice(0, 400).reduce((most, text) => Math.max(most, [...text].length), 1);
  const left = Math.min(118, 22 + Math.max(longest(p.rows) * 6.6, p.rowAxis.length * 5));
  const inside = p.words ? "words" : count <= NUMBERED ? "numbers" : "none";
  const room = Math.floor((available - left - 2) / p.columns.length);
  let cellWidth = inside === "words" ? Math.max(68, Math.min(112, room)) : Math.max(46, Math.min(72, room));
  let cellHeight = 23;
  if (inside === "none" || (inside === "words" && p.columns.length > 400)) {
    cellWidth = Math.max(1, Math.min(16, Math.floor((available - left) / p.columns.length)));
    if (inside === "words") cellWidth = 74;
    else cellHeight = p.columns.length > 3 * p.rows.length ? Math.max(6, Math.min(20, Math.floor(320 / p.rows.length))) : cellWidth;
  }
  cellWidth = Math.max(1, Math.round(cellWidth * zoom));
  cellHeight = inside === "none" ? Math.max(1, Math.round(cellHeight * zoom)) : Math.max(14, Math.round(cellHeight * Math.min(zoom, 1.4)));
  const upright = cellWidth < 36 && cellWidth >= 11;
  const top = upright ? Math.min(96, 16 + longest(p.columns) * 6) : 24;
  return {
    cellWidth, cellHeight, left, top, inside,
    width: left + p.columns.length * cellWidth + 1,
    height: top + p.rows.length * cellHeight + 1,
  };
}

/** The whole matrix with one pixel per cell, for cells that are too small to be drawn one by one. */
function pixels(p: MatrixProps, palette: Palette): HTMLCanvasElement {
  const canvas = document.createElement("canvas");
  canvas.width = p.columns.length;
  canvas.height = p.rows.length;
  const context = canvas.getContext("2d")!;
  const image = context.createImageData(canvas.width, canvas.height);
  const out = new Uint32Array(image.data.buffer);
  const lookup = table(palette);
  const factor = p.scale > 0 ? 255 / p.scale : 0;
  for (let i = 0; i < out.length; i++) {
    const step = Math.round(p.values[i]! * factor);
    out[i] = lookup[255 + (step !== step ? 0 : step > 255 ? 255 : step < -255 ? -255 : step)]!;
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

function fitted(context: CanvasRenderingContext2D, text: string, width: number): string {
  if (context.measureText(text).width <= width) return text;
  const characters = [...text];
  while (characters.length > 1 && context.measureText(characters.join("") + "…").width > width) characters.pop();
  return characters.length <= 1 && width < 12 ? "" : characters.join("") + "…";
}

function draw(
  canvas: HTMLCanvasElement, p: MatrixProps, f: Frame, x0: number, y0: number, palette: Palette, small: HTMLCanvasElement | null,
  cursor: readonly [number, number] | null,
): void {
  const context = canvas.getContext("2d")!;
  const ratio = devicePixelRatio || 1;
  const [width, height] = [canvas.width / ratio, canvas.height / ratio];
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.fillStyle = css(palette.paper);
  context.fillRect(0, 0, width, height);
  context.font = FONT;
  context.textBaseline = "middle";
  const firstRow = Math.max(0, Math.floor(y0 / f.cellHeight));
  const lastRow = Math.min(p.rows.length, Math.ceil((y0 + height - f.top) / f.cellHeight));
  const firstColumn = Math.max(0, Math.floor(x0 / f.cellWidth));
  const lastColumn = Math.min(p.columns.length, Math.ceil((x0 + width - f.left) / f.cellWidth));
  const x = (column: number) => f.left + column * f.cellWidth - x0;
  const y = (row: number) => f.top + row * f.cellHeight - y0;
  context.save();
  context.beginPath();
  context.rect(f.left, f.top, width - f.left, height - f.top);
  context.clip();
  if (small !== null) {
    context.imageSmoothingEnabled = false;
    context.drawImage(
      small, firstColumn, firstRow, lastColumn - firstColumn, lastRow - firstRow, x(firstColumn), y(firstRow),
      (lastColumn - firstColumn) * f.cellWidth, (lastRow - firstRow) * f.cellHeight,
    );
  } else {
    const gap = f.cellWidth > 8 && f.cellHeight > 8 ? 1 : 0;
    const write = numberFormat(p.scale, p.scale >= 1 ? 3 : 2, p.signed);
    const lookup = table(palette);
    context.textAlign = "center";
    for (let row = firstRow; row < lastRow; row++) {
      for (let column = firstColumn; column < lastColumn; column++) {
        const value = p.values[row * p.columns.length + column]!;
        const packed = lookup[255 + Math.round((level(value, p.scale) / LEVELS) * 255)]!;
        context.fillStyle = `rgb(${packed & 255},${(packed >> 8) & 255},${(packed >> 16) & 255})`;
        context.fillRect(x(column), y(row), f.cellWidth - gap, f.cellHeight - gap);
        if (f.inside === "none" || f.cellWidth < 26) continue;
        const text = f.inside === "words" ? word(p.words![row * p.columns.length + column] ?? "", 16) : write(value);
        context.fillStyle = css(palette.ink);
        context.fillText(fitted(context, text, f.cellWidth - 5), x(column) + (f.cellWidth - gap) / 2, y(row) + f.cellHeight / 2);
      }
    }
  }
  const outline = (row: number, column: number, thick: number) => {
    context.strokeStyle = css(palette.ink);
    context.lineWidth = thick;
    const grow = Math.max(0, 5 - Math.min(f.cellWidth, f.cellHeight)) / 2;
    context.strokeRect(x(column) - grow, y(row) - grow, f.cellWidth - 1 + 2 * grow, f.cellHeight - 1 + 2 * grow);
  };
  if (p.marked !== null && p.marked !== undefined && p.marked < p.columns.length) {
    context.strokeStyle = css(palette.ink);
    context.lineWidth = 1;
    context.setLineDash([3, 3]);
    context.strokeRect(x(p.marked) - 0.5, f.top - y0 - 0.5, f.cellWidth, p.rows.length * f.cellHeight);
    context.setLineDash([]);
  }
  if (p.selected) outline(p.selected[0], p.selected[1], 2.5);
  if (cursor) outline(cursor[0], cursor[1], 1.5);
  context.restore();
  headers(context, p, f, palette, { x, y, firstRow, lastRow, firstColumn, lastColumn, width, height });
}

interface Sight {
  x: (column: number) => number;
  y: (row: number) => number;
  firstRow: number;
  lastRow: number;
  firstColumn: number;
  lastColumn: number;
  width: number;
  height: number;
}

function headers(context: CanvasRenderingContext2D, p: MatrixProps, f: Frame, palette: Palette, s: Sight): void {
  context.fillStyle = css(palette.paper);
  context.fillRect(0, 0, s.width, f.top);
  context.fillRect(0, 0, f.left, s.height);
  context.fillStyle = css(palette.quiet);
  context.textAlign = "right";
  context.fillText(fitted(context, p.rowAxis, f.left - 8), f.left - 7, f.top - 11);
  context.save();
  context.beginPath();
  context.rect(0, f.top, f.left, s.height - f.top);
  context.clip();
  context.textAlign = "right";
  const everyRow = Math.max(1, Math.ceil(12 / f.cellHeight));
  for (let row = s.firstRow - (s.firstRow % everyRow); row < s.lastRow; row += everyRow) {
    context.fillText(fitted(context, p.rows[row]!, f.left - 12), f.left - 7, s.y(row) + Math.max(f.cellHeight, 11) / 2);
  }
  context.restore();
  context.save();
  context.beginPath();
  context.rect(f.left, 0, s.width - f.left, f.top);
  context.clip();
  if (f.cellWidth >= 36) {
    context.textAlign = "center";
    for (let column = s.firstColumn; column < s.lastColumn; column++) {
      context.fillText(fitted(context, p.columns[column]!, f.cellWidth - 4), s.x(column) + f.cellWidth / 2, f.top - 11);
    }
  } else if (f.cellWidth >= 11) {
    context.textAlign = "left";
    for (let column = s.firstColumn; column < s.lastColumn; column++) {
      context.save();
      context.translate(s.x(column) + f.cellWidth / 2, f.top - 6);
      context.rotate(-Math.PI / 2);
      context.fillText(fitted(context, p.columns[column]!, f.top - 10), 0, 0);
      context.restore();
    }
  } else {
    const every = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].find((n) => n * f.cellWidth >= 36) ?? 2000;
    context.textAlign = "left";
    for (let column = s.firstColumn - (s.firstColumn % every); column < s.lastColumn; column += every) {
      context.fillRect(s.x(column), f.top - 5, 1, 4);
      context.fillText(String(column), s.x(column) + 2, f.top - 12);
    }
  }
  context.restore();
}

export function Matrix(p: MatrixProps) {
  const box = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const readout = useRef<HTMLParagraphElement>(null);
  const cursor = useRef<[number, number] | null>(null);
  const [available, setAvailable] = useState(900);
  const [zoom, setZoom] = useState(1);
  const palette = colours.value;
  const frame = useMemo(() => measure(p, available, zoom), [p.rows, p.columns, p.words, available, zoom]);
  const tiny = frame.inside === "none" && Math.min(frame.cellWidth, frame.cellHeight) < 6;
  const small = useMemo(() => (tiny ? pixels(p, palette) : null), [tiny, p.values, p.scale, palette]);
  const shownWidth = Math.min(available, frame.width);
  const shownHeight = Math.min(frame.height, Math.max(220, Math.round(innerHeight * 0.7)));

  const redraw = () => {
    if (canvas.current && box.current) {
      draw(canvas.current, p, frame, box.current.scrollLeft, box.current.scrollTop, palette, small, cursor.current);
    }
  };
  const latest = useRef(redraw);
  latest.current = redraw;
  useEffect(() => {
    const watch = new ResizeObserver(([entry]) => setAvailable(Math.max(200, Math.floor(entry!.contentRect.width))));
    watch.observe(box.current!.parentElement!);
    return () => watch.disconnect();
  }, []);
  useEffect(() => {
    const ratio = devicePixelRatio || 1;
    const element = canvas.current!;
    element.width = Math.round(shownWidth * ratio);
    element.height = Math.round(shownHeight * ratio);
    latest.current();
  });

  const say = () => {
    if (!readout.current) return;
    if (cursor.current === null) return void (readout.current.textContent = "");
    const [row, column] = cursor.current;
    const index = row * p.columns.length + column;
    const error = p.error ? ` ± ${exact(p.error[index]!).replace("+", "")}` : "";
    const shown = p.words ? `“${p.words[index]}” ` : "";
    readout.current.textContent = `${p.rowAxis} ${p.rows[row]}, ${p.columnAxis} ${p.columns[column]}: ${shown}${exact(p.values[index]!)}${error}`;
  };
  const cell = (event: MouseEvent): [number, number] | null => {
    const place = canvas.current!.getBoundingClientRect();
    const column = Math.floor((event.clientX - place.left - frame.left + box.current!.scrollLeft) / frame.cellWidth);
    const row = Math.floor((event.clientY - place.top - frame.top + box.current!.scrollTop) / frame.cellHeight);
    const inside = event.clientX - place.left >= frame.left && event.clientY - place.top >= frame.top;
    return inside && row >= 0 && column >= 0 && row < p.rows.length && column < p.columns.length ? [row, column] : null;
  };
  const move = (to: [number, number] | null) => {
    const now = cursor.current;
    if (to === now || (to && now && to[0] === now[0] && to[1] === now[1])) return;
    cursor.current = to;
    say();
    requestAnimationFrame(() => latest.current());
  };
  const intoSight = ([row, column]: [number, number]) => {
    const b = box.current!;
    const [x, y] = [column * frame.cellWidth, row * frame.cellHeight];
    if (x < b.scrollLeft) b.scrollLeft = x;
    else if (x + frame.cellWidth > b.scrollLeft + shownWidth - frame.left) b.scrollLeft = x + frame.cellWidth - shownWidth + frame.left;
    if (y < b.scrollTop) b.scrollTop = y;
    else if (y + frame.cellHeight > b.scrollTop + shownHeight - frame.top) b.scrollTop = y + frame.cellHeight - shownHeight + frame.top;
  };
  const key = (event: KeyboardEvent) => {
    const [row, column] = cursor.current ?? p.selected ?? [0, -1];
    const steps: Record<string, [number, number]> = {
      ArrowUp: [row - 1, Math.max(0, column)], ArrowDown: [cursor.current ? row + 1 : 0, Math.max(0, column)],
      ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1],
      Home: [row, 0], End: [row, p.columns.length - 1], PageUp: [0, Math.max(0, column)], PageDown: [p.rows.length - 1, Math.max(0, column)],
    };
    const step = steps[event.key];
    if (step) {
      event.preventDefault();
      const to: [number, number] = [
        Math.max(0, Math.min(p.rows.length - 1, step[0])), Math.max(0, Math.min(p.columns.length - 1, step[1])),
      ];
      intoSight(to);
      move(to);
    } else if ((event.key === "Enter" || event.key === " ") && cursor.current) {
      event.preventDefault();
      p.onPick?.(...cursor.current);
    } else if (event.key === "Escape") move(null);
    else if (event.key === "+" || event.key === "=") setZoom(Math.min(8, zoom * 1.5));
    else if (event.key === "-") setZoom(Math.max(0.2, zoom / 1.5));
  };
  const hint = `${p.rows.length} rows (${p.rowAxis}) by ${p.columns.length} columns (${p.columnAxis}). Arrow keys move, ${p.onPick ? "Enter picks, " : ""}plus and minus zoom.`;
  return (
    <div class="matrix">
      <div ref={box} class="sight" style={{ width: `${shownWidth}px`, height: `${shownHeight + 1}px` }} onScroll={redraw}
        tabIndex={0} role="application" aria-roledescription="grid" aria-label={`${p.name}. ${hint}`} onKeyDown={key}
        onBlur={() => move(null)}>
        <canvas ref={canvas} class={p.onPick ? "picks" : ""} style={{ width: `${shownWidth}px`, height: `${shownHeight}px` }}
          onPointerMove={(event) => move(cell(event))} onPointerLeave={() => move(null)}
          onClick={(event) => {
            const at = cell(event);
            if (at) p.onPick?.(...at);
          }} />
        <div style={{ width: `${frame.width}px`, height: `${frame.height - shownHeight}px` }} />
      </div>
      <div class="under">
        <p class="readout" ref={readout} aria-live="polite" dir="auto" />
        <span class="zoom">
          <button type="button" aria-label="Smaller cells" onClick={() => setZoom(Math.max(0.2, zoom / 1.5))}>−</button>
          <button type="button" aria-label="Larger cells" onClick={() => setZoom(Math.min(8, zoom * 1.5))}>+</button>
        </span>
      </div>
    </div>
  );
}

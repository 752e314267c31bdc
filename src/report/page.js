// SPDX-License-Identifier: MIT
// Draws the charts of the page they stand in; the data is beside each of them. See page.h for what the charts are.
(function () {
"use strict";

const root = document.documentElement;
const FONT = '12px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';
const colour = name => getComputedStyle(root).getPropertyValue("--" + name).trim();

/*
 * Numbers for people.
 */

function digits(value) {
	return value.toFixed(value < 9.995 ? 2 : value < 99.95 ? 1 : 0);
}

function scaled(value, base, first, units) {
	let unit = 0;

	while (value >= base * 0.9995 && unit < units.length - 1) {
		value /= base;
		unit++;
	}
	return (unit || first ? digits(value) : String(value < 1 ? Number(value.toPrecision(2)) : Math.round(value * 100) / 100)) + (units[unit] ? " " + units[unit] : "");
}

function seconds(value) {
	if (value >= 120)
		return value >= 7200 ? digits(value / 3600) + " h" : digits(value / 60) + " min";
	return value < 1e-6 ? Math.round(value * 1e9) + " ns" : scaled(value * 1e6, 1000, true, ["\u00b5s", "ms", "s"]);
}

const format = {
	count: value => scaled(value, 1000, false, ["", "k", "M", "G", "T"]),
	rate: value => format.count(value) + "/s",
	seconds: seconds,
	bytes: value => scaled(value, 1024, false, ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]),
	"bytes-rate": value => format.bytes(value) + "/s",
};

/* On an axis, where figures are round: without the zeros behind the point. */
const tick = (value, unit) => value === 0 ? "0" : format[unit](value).replace(/(\.\d*?)0+(?= |$)/, "$1").replace(/\.(?= |$)/, "");

/*
 * Axes.
 */

/* Round steps from 0 to `top`, at most `most` of them; of bytes in powers of two. */
function linearTicks(top, most, unit) {
	const base = unit.startsWith("bytes") ? 2 : 10, ticks = [];
	let step = Math.pow(base, Math.floor(Math.log(top / most) / Math.log(base)));

	for (const by of base === 2 ? [1, 2, 4] : [1, 2, 5, 10])
		if (top / (step * by) <= most) {
			step *= by;
			break;
		}
	if (unit === "count")
		step = Math.max(step, 1);
	for (let i = 0; i * step <= top * 1.0001; i++)
		ticks.push(i * step);
	return ticks;
}

/* Powers of ten, at most `most`. */
function powers(from, to, most) {
	const ticks = [], by = Math.max(1, Math.ceil(Math.log10(to / from) / most));

	for (let power = Math.ceil(Math.log10(from) - 1e-9); power <= Math.log10(to) + 1e-9; power += by)
		ticks.push(Math.pow(10, power));
	return ticks;
}

/*
 * Drawing.
 */

/* Sizes the canvas to the pixels of the screen, and clears it. */
function begin(chart) {
	const canvas = chart.canvas, ratio = window.devicePixelRatio || 1, pen = canvas.getContext("2d");

	chart.width = canvas.clientWidth;
	chart.height = canvas.clientHeight;
	canvas.width = Math.round(chart.width * ratio);
	canvas.height = Math.round(chart.height * ratio);
	pen.setTransform(ratio, 0, 0, ratio, 0, 0);
	pen.font = FONT;
	pen.textBaseline = "middle";
	chart.left = 8;
	chart.right = chart.width - 10;
	chart.top = 8;
	chart.bottom = chart.height - 24;
	return pen;
}

/* The field, to the right of the widest of the labels. */
function field(pen, chart, labels) {
	chart.left = 16 + Math.ceil(Math.max(...labels.map(words => pen.measureText(words).width)));
	pen.fillStyle = colour("plot");
	pen.fillRect(chart.left, 8, chart.right - chart.left, chart.bottom - 8);
}

function text(pen, words, x, y, align, style) {
	pen.fillStyle = style || colour("soft");
	pen.textAlign = align;
	pen.fillText(words, x, y);
}

function line(pen, x1, y1, x2, y2, style, dash) {
	pen.strokeStyle = style;
	pen.lineWidth = 1;
	pen.setLineDash(dash || []);
	pen.beginPath();
	pen.moveTo(x1, y1);
	pen.lineTo(x2, y2);
	pen.stroke();
	pen.setLineDash([]);
}

/* Text may not hang over the edge, nor over what was written before it. */
function drawXAxis(pen, chart, ticks, xOf, label) {
	let free = chart.left - 20;

	for (const value of ticks) {
		const x = xOf(value), words = label(value), half = pen.measureText(words).width / 2;
		const at = Math.min(Math.max(x, half), chart.width - half);

		line(pen, x, chart.bottom, x, chart.bottom + 4, colour("line"));
		if (at - half < free)
			continue;
		text(pen, words, at, chart.bottom + 14, "center");
		free = at + half + 10;
	}
}

function drawYAxis(pen, chart, ticks, yOf, label) {
	for (const value of ticks) {
		const y = yOf(value);

		line(pen, chart.left, Math.round(y) + 0.5, chart.right, Math.round(y) + 0.5, colour("line"));
		text(pen, label(value), chart.left - 8, y, "right");
	}
}

function drawTimeAxis(pen, chart, from, to) {
	const xOf = value => chart.left + (value - from) / (to - from || 1) * (chart.right - chart.left);
	const ticks = linearTicks(to - from, Math.max(2, Math.floor((chart.right - chart.left) / 90)), "seconds");

	drawXAxis(pen, chart, ticks.map(value => value + from), xOf, value => tick(value, "seconds"));
	return xOf;
}

function nothing(pen, chart) {
	text(pen, "nothing was recorded", (chart.left + chart.right) / 2, (chart.top + chart.bottom) / 2, "center");
}

/*
 * Timeline.
 */

const seriesColour = index => colour("c" + index % 4);

function stack(data) {
	let below = null;

	for (const series of data.series) {
		series.low = series.area ? below : null;
		series.high = series.values.map((value, i) => value === null ? null : value + (series.low ? series.low[i] : 0));
		if (series.area)
			below = series.high.map(value => value || 0);
	}
}

function valueScale(chart, data) {
	const all = data.series.flatMap(series => series.high).filter(value => value !== null && (!data.log || value > 0));
	const height = chart.bottom - chart.top;
	let top = all.reduce((a, b) => Math.max(a, b), 0), low = all.reduce((a, b) => Math.min(a, b), Infinity);

	if (!(top > 0))
		return null;
	if (!data.log) {
		top *= 1.06;
		return {ticks: linearTicks(top, 5, data.unit), y: value => chart.bottom - value / top * height};
	}
	low = Math.pow(10, Math.floor(Math.log10(low) + 1e-9));
	top = Math.max(top * 1.3, low * 10);
	return {ticks: powers(low, top, 6), y: value => chart.bottom - Math.log(value / low) / Math.log(top / low) * height};
}

/* The series as steps, so that a bin is as wide as it is. */
function drawSeries(pen, chart, data, series, index, xOf, yOf) {
	const edge = i => xOf(data.start + i * data.step), shown = value => value !== null && (!data.log || value > 0);
	const trace = close => {
		let up = false;

		pen.beginPath();
		for (let i = 0; i < data.count; i++) {
			const value = series.high[i], floor = close ? yOf(series.low ? series.low[i] : 0) : 0;

			if (!shown(value)) {
				up = false;
				continue;
			}
			if (close) {
				pen.rect(edge(i), yOf(value), edge(i + 1) - edge(i), floor - yOf(value));
				continue;
			}
			if (up)
				pen.lineTo(edge(i), yOf(value));
			else
				pen.moveTo(edge(i), yOf(value));
			pen.lineTo(edge(i + 1), yOf(value));
			up = true;
		}
	};

	if (series.area) {
		pen.globalAlpha = 0.35;
		pen.fillStyle = seriesColour(index);
		trace(true);
		pen.fill();
		pen.globalAlpha = 1;
	}
	pen.strokeStyle = seriesColour(index);
	pen.lineWidth = 1.5;
	pen.lineJoin = "round";
	trace(false);
	pen.stroke();
}

function drawPhases(pen, chart, data, xOf) {
	let free = chart.left;

	data.phases.forEach((phase, i) => {
		const from = Math.max(xOf(phase.from), chart.left), to = Math.min(xOf(phase.to), chart.right), width = to - from;

		if (width <= 0)
			return;
		/* A short one is a line that must not be overlooked. */
		pen.globalAlpha = width < 4 ? 0.6 : i % 2 ? 0.2 : 0.1;
		pen.fillStyle = colour("shade");
		pen.fillRect(from, chart.top, Math.max(width, 3), chart.bottom - chart.top);
		pen.globalAlpha = 1;
		line(pen, from, chart.top, from, chart.bottom, colour("soft"), [2, 3]);
		/* Beside the phase where it is too narrow, if there is room. */
		const needed = pen.measureText(phase.name).width;
		const at = Math.max(from + 5, free), end = i + 1 < data.phases.length ? xOf(data.phases[i + 1].from) : chart.right;

		if (at + needed <= Math.max(end, to) && at + needed <= chart.right) {
			text(pen, phase.name, at, chart.top + 10, "left", colour("ink"));
			free = at + needed + 8;
		}
	});
}

function drawMarks(pen, chart, data, xOf) {
	for (const mark of data.marks) {
		const x = xOf(mark.at);

		pen.fillStyle = colour("ink");
		pen.beginPath();
		pen.moveTo(x - 4, chart.bottom + 1);
		pen.lineTo(x + 4, chart.bottom + 1);
		pen.lineTo(x, chart.bottom - 6);
		pen.fill();
	}
}

function drawTimeline(chart) {
	const data = chart.data, pen = begin(chart), to = data.start + data.count * data.step;
	let scale, xOf;

	if (data.series.some(series => !series.high))
		stack(data);
	chart.top = data.phases.length ? 24 : 8;
	scale = valueScale(chart, data);
	field(pen, chart, scale ? scale.ticks.map(value => tick(value, data.unit)) : [""]);
	chart.top = 8;
	xOf = drawTimeAxis(pen, chart, data.start, to);
	drawPhases(pen, chart, data, xOf);
	if (!scale)
		return nothing(pen, chart);
	drawYAxis(pen, chart, scale.ticks, scale.y, value => tick(value, data.unit));
	/* The first on top: it is the one that the chart is about. */
	for (let i = data.series.length - 1; i >= 0; i--)
		drawSeries(pen, chart, data, data.series[i], i, xOf, scale.y);
	drawMarks(pen, chart, data, xOf);
	chart.hit = (x, y, pen) => {
		const at = data.start + (x - chart.left) / (chart.right - chart.left) * (to - data.start);
		const bin = Math.min(Math.max(Math.floor((at - data.start) / data.step), 0), data.count - 1);
		const from = data.start + bin * data.step, end = from + data.step, lines = [seconds(from) + " \u2013 " + seconds(end)];

		line(pen, x, chart.top, x, chart.bottom, colour("soft"));
		for (const phase of data.phases)
			if (phase.from < end && phase.to > from)
				lines.push(phase.name);
		for (const series of data.series)
			lines.push(series.name + ": " + (series.values[bin] === null ? "none" : format[data.unit](series.values[bin])));
		for (const mark of data.marks)
			if (Math.abs(xOf(mark.at) - x) < 6 && lines.length < 14)
				lines.push(mark.text);
		return lines.join("\n");
	};
	return undefined;
}

/*
 * Histogram.
 */

function drawHistogram(chart) {
	const data = chart.data, pen = begin(chart), bars = [], marks = data.marks.concat([["max", data.max]]);
	const log = chart.choice === 1;

	for (let i = 0; i < data.bars.length; i += 3)
		bars.push({from: Math.max(data.bars[i], 1) * 1e-9, to: data.bars[i + 1] * 1e-9, count: data.bars[i + 2]});
	if (!bars.length) {
		field(pen, chart, [""]);
		return nothing(pen, chart);
	}
	chart.top = 24;
	/* At least a decade, in the middle of which there are the bars. */
	const around = Math.max(1.15, Math.sqrt(10 / (bars[bars.length - 1].to / bars[0].from)));
	const low = bars[0].from / around, high = bars[bars.length - 1].to * around;
	const xOf = value => chart.left + Math.log(value / low) / Math.log(high / low) * (chart.right - chart.left);
	const top = bars.reduce((a, bar) => Math.max(a, bar.count), 0) * 1.05, height = chart.bottom - chart.top;
	/* A single one is to be seen as well. */
	const yOf = value => chart.bottom - (log ? Math.log(value / 0.7) / Math.log(top / 0.7) : value / top) * height;

	const ticks = log ? powers(1, top, 6) : linearTicks(top, 5, "count");

	field(pen, chart, ticks.map(value => tick(value, "count")));
	drawXAxis(pen, chart, (high / low < 1e7 ? [1, 2, 5] : [1]).flatMap(by => powers(low / by, high / by, 8).map(value => value * by)).sort((a, b) => a - b),
		xOf, value => tick(value, "seconds"));
	drawYAxis(pen, chart, ticks, yOf, value => tick(value, "count"));
	pen.fillStyle = colour("c0");
	for (const bar of bars) {
		const x = xOf(bar.from), y = Math.min(yOf(bar.count), chart.bottom - 1), width = xOf(bar.to) - x;

		pen.fillRect(x, y, Math.max(width - (width > 4 ? 1 : 0), 1), chart.bottom - y);
	}
	let free = 0;
	for (const [name, ns] of marks) {
		const x = xOf(ns * 1e-9), words = name + " " + seconds(ns * 1e-9), half = pen.measureText(words).width / 2;
		const at = Math.max(Math.min(Math.max(x, half), chart.width - half), free + half);

		line(pen, x, chart.top - 4, x, chart.bottom, colour("c1"), name === "max" ? [] : [4, 3]);
		/* What finds no room above is in the legend. */
		if (at + half <= chart.width && Math.abs(at - x) < half + 2) {
			text(pen, words, at, 10, "center", colour("ink"));
			free = at + half + 8;
		}
	}
	chart.legend.replaceChildren(...marks.map(([name, ns]) => entry("", name + " " + seconds(ns * 1e-9))));
	chart.hit = (x, y, pen) => {
		const bar = bars.find(one => x >= xOf(one.from) - 1 && x <= xOf(one.to) + 1);
		const share = bar && 100 * bar.count / data.count;

		if (!bar)
			return null;
		pen.strokeStyle = colour("ink");
		pen.strokeRect(xOf(bar.from), yOf(bar.count), xOf(bar.to) - xOf(bar.from), chart.bottom - yOf(bar.count));
		return seconds(bar.from) + " \u2013 " + seconds(bar.to) + "\n" + bar.count.toLocaleString("en") + " " + data.things + ", " +
			(share < 0.01 ? "<0.01" : share.toFixed(2)) + " %";
	};
	return undefined;
}

/*
 * Heat map.
 */

const hex = value => "0x" + value;
const distance = (from, to) => Number(BigInt("0x" + to) - BigInt("0x" + from));

/* The cells as arrays, of as many columns as can be told apart in this width: counts are added, of durations the longest stays. */
function gather(chart, width) {
	const data = chart.data, by = Math.max(1, Math.ceil(data.columns * 2 / width)), columns = Math.ceil(data.columns / by);
	const layers = data.layers.map(() => new Float64Array(data.rows.length * columns));
	let cell = 0;

	for (let i = 0; i < data.cells.length; i += 1 + layers.length) {
		cell += data.cells[i];
		const at = Math.floor(cell / data.columns) * columns + Math.floor(cell % data.columns / by);

		layers.forEach((layer, j) => {
			const value = data.cells[i + 1 + j];

			layer[at] = data.layers[j].unit === "seconds" ? Math.max(layer[at], value) : layer[at] + value;
		});
	}
	return {columns, layers, span: data.duration / data.columns * by};
}

/* 64 colours from few to many. */
function ramp(index) {
	const stops = colour("heat" + index).split(/\s+/).map(stop => [1, 3, 5].map(at => parseInt(stop.slice(at, at + 2), 16)));

	return Array.from({length: 64}, (unused, i) => {
		const at = i / 63 * (stops.length - 1), low = Math.min(Math.floor(at), stops.length - 2), part = at - low;

		return "rgb(" + stops[low].map((value, j) => Math.round(value + (stops[low + 1][j] - value) * part)).join(",") + ")";
	});
}

/* Where each row is: the highest address on top, and room between regions. */
function placeRows(chart, rows) {
	const gap = rows.length > 1 ? 5 : 0, breaks = rows.filter((row, i) => i && row[0] !== rows[i - 1][1]).length;
	const height = (chart.bottom - chart.top - breaks * gap) / rows.length;
	let y = chart.bottom;

	return rows.map((row, i) => {
		if (i && row[0] !== rows[i - 1][1])
			y -= gap;
		y -= height;
		return {top: Math.round(y), bottom: Math.round(y + height)};
	});
}

/* Where the rows of each region begin and end. */
function findRegions(rows) {
	const regions = [];

	rows.forEach((row, i) => {
		if (i && rows[i - 1][3] === row[3])
			regions[regions.length - 1].end = i + 1;
		else
			regions.push({number: row[3], start: i, end: i + 1});
	});
	return regions;
}

/* A region by its number, and in a high one round distances from its start: from below, as there is room. */
function drawRegion(pen, chart, rows, places, region, free) {
	const bottom = places[region.start].bottom, top = places[region.end - 1].top, perRow = distance(rows[region.start][0], rows[region.start][1]);
	const y = Math.max(bottom - 6, chart.top + 6);
	let step = 4096;

	if (y > free - 14)
		return free;
	text(pen, "region " + region.number, chart.left - 8, y, "right");
	while (step / perRow * (bottom - top) / (region.end - region.start) < 36)
		step *= 2;
	for (let at = step; ; at += step) {
		const height = at / perRow * (bottom - top) / (region.end - region.start);

		if (bottom - height < top + 8)
			break;
		if (height < 26)
			continue;
		text(pen, "+" + tick(at, "bytes"), chart.left - 8, bottom - height, "right");
		line(pen, chart.left - 5, bottom - height, chart.left, bottom - height, colour("line"));
		free = bottom - height;
	}
	return Math.min(free, y);
}

function drawRegions(pen, chart, rows, places, regions) {
	regions.reduce((free, region) => drawRegion(pen, chart, rows, places, region, free), chart.height);
	rows.forEach((row, i) => {
		if (!i || row[0] === rows[i - 1][1])
			return;
		pen.fillStyle = colour("card");
		pen.fillRect(chart.left, places[i].bottom, chart.right - chart.left, places[i - 1].top - places[i].bottom);
	});
}

function drawHeatmap(chart) {
	const data = chart.data, pen = begin(chart), layer = chart.choice;

	field(pen, chart, ["+888 MiB"]);
	if (!data.rows.length || !data.cells.length)
		return nothing(pen, chart);
	const width = chart.right - chart.left, grid = gather(chart, width), values = grid.layers[layer];
	const places = placeRows(chart, data.rows), colours = ramp(layer), edge = i => chart.left + Math.round(i / grid.columns * width);
	const set = values.filter(value => value > 0);
	const low = set.reduce((a, b) => Math.min(a, b), Infinity), high = set.reduce((a, b) => Math.max(a, b), 0);

	drawTimeAxis(pen, chart, 0, data.duration);
	values.forEach((value, i) => {
		const row = places[Math.floor(i / grid.columns)], column = i % grid.columns;

		if (!(value > 0))
			return;
		pen.fillStyle = colours[high > low ? Math.round(Math.log(value / low) / Math.log(high / low) * 63) : 44];
		pen.fillRect(edge(column), row.top, Math.max(edge(column + 1) - edge(column), 1), Math.max(row.bottom - row.top, 1));
	});
	const regions = findRegions(data.rows);

	drawRegions(pen, chart, data.rows, places, regions);
	heatLegend(chart, data.layers[layer], colours, low, high);
	chart.hit = (x, y, pen) => {
		const at = places.findIndex(place => y >= place.top && y < place.bottom), column = Math.floor((x - chart.left) / width * grid.columns);

		if (at < 0 || column < 0 || column >= grid.columns)
			return null;
		const row = data.rows[at], region = regions.find(one => at < one.end);
		const lines = [hex(row[0]) + " \u2013 " + hex(row[1]),
			"region " + row[3] + " +" + format.bytes(distance(data.rows[region.start][0], row[0]))];

		if (row[2] !== null)
			lines[1] += ", at " + hex(row[2]) + " of the store";
		lines.push(seconds(column * grid.span) + " \u2013 " + seconds((column + 1) * grid.span));
		grid.layers.forEach((one, i) => {
			const value = one[at * grid.columns + column];

			if (value)
				lines.push(data.layers[i].name + ": " + (data.layers[i].unit === "count" ? value.toLocaleString("en")
					: format[data.layers[i].unit](value)));
		});
		pen.strokeStyle = colour("ink");
		pen.lineWidth = 1;
		pen.strokeRect(edge(column) - 0.5, places[at].top - 0.5, edge(column + 1) - edge(column) + 1, places[at].bottom - places[at].top + 1);
		return lines.join("\n");
	};
	return undefined;
}

/*
 * Legends, and the buttons that choose.
 */

function entry(style, words) {
	const span = document.createElement("span");

	if (style) {
		const swatch = document.createElement("i");

		swatch.style.background = style;
		span.append(swatch);
	}
	span.append(words);
	return span;
}

function heatLegend(chart, layer, colours, low, high) {
	const span = document.createElement("span"), bar = document.createElement("i");

	if (!high) {
		chart.legend.replaceChildren(entry("", layer.name + ": none"));
		return;
	}
	bar.className = "ramp";
	bar.style.background = "linear-gradient(to right," + colours.filter((unused, i) => i % 9 === 0).join(",") + ")";
	if (high > low)
		span.append(format[layer.unit](low), bar, format[layer.unit](high) + " in a cell (logarithmic)");
	else
		span.append(entry(colours[44], format[layer.unit](high) + " in a cell"));
	chart.legend.replaceChildren(span);
}

function timelineLegend(chart) {
	chart.legend.replaceChildren(...chart.data.series.map((series, i) => entry(seriesColour(i), series.name)),
		...chart.data.marks.length ? [entry("", "\u25b2 " + chart.data.markName)] : [],
		...chart.data.phases.map(phase => entry("", phase.name + ": " + tick(phase.to - phase.from, "seconds"))));
}

function addButtons(chart, names) {
	names.forEach((name, i) => {
		const button = document.createElement("button");

		button.type = "button";
		button.textContent = name;
		button.setAttribute("aria-pressed", String(i === 0));
		button.addEventListener("click", () => {
			chart.choice = i;
			chart.buttons.forEach((one, j) => one.setAttribute("aria-pressed", String(i === j)));
			draw(chart);
		});
		chart.buttons.push(button);
	});
	chart.controls.replaceChildren(...chart.buttons);
}

/*
 * Pointing at things, with a mouse, a finger or the arrow keys.
 */

function point(chart) {
	const inside = chart.pointer && chart.hit && chart.pointer.x >= chart.left && chart.pointer.x <= chart.right;
	const words = inside ? chart.hit(chart.pointer.x, chart.pointer.y, chart.canvas.getContext("2d")) : null;

	chart.tip.hidden = !words;
	if (!words)
		return;
	chart.tip.textContent = words;
	const width = chart.tip.offsetWidth, height = chart.tip.offsetHeight, {x, y} = chart.pointer;

	chart.tip.style.left = Math.max(0, Math.min(x + 14 + width > chart.width ? x - width - 14 : x + 14, chart.width - width)) + "px";
	chart.tip.style.top = Math.max(0, y - height - 10) + "px";
}

function listen(chart) {
	const steps = {ArrowLeft: [-4, 0], ArrowRight: [4, 0], ArrowUp: [0, -4], ArrowDown: [0, 4]}, canvas = chart.canvas;
	const move = pointer => {
		chart.pointer = pointer;
		draw(chart);
	};

	canvas.tabIndex = 0;
	for (const name of ["pointermove", "pointerdown"])
		canvas.addEventListener(name, event => {
			const box = canvas.getBoundingClientRect();

			move({x: event.clientX - box.left, y: event.clientY - box.top});
		});
	canvas.addEventListener("pointerleave", () => move(null));
	canvas.addEventListener("blur", () => move(null));
	canvas.addEventListener("keydown", event => {
		const step = steps[event.key], at = chart.pointer || {x: (chart.left + chart.right) / 2, y: (chart.top + chart.bottom) / 2};

		if (!step)
			return;
		event.preventDefault();
		move({x: Math.min(Math.max(at.x + step[0], chart.left), chart.right - 1),
			y: Math.min(Math.max(at.y + step[1], chart.top), chart.bottom - 1)});
	});
}

/*
 * All together.
 */

const kinds = {timeline: drawTimeline, histogram: drawHistogram, heatmap: drawHeatmap};
const charts = [];

function draw(chart) {
	chart.hit = null;
	kinds[chart.data.kind](chart);
	if (chart.data.kind === "timeline")
		timelineLegend(chart);
	point(chart);
}

const drawAll = () => charts.forEach(draw);

for (const figure of document.querySelectorAll("figure.chart")) {
	const find = what => figure.querySelector(what);
	const chart = {canvas: find("canvas"), controls: find(".controls"), legend: find(".legend"), choice: 0, buttons: [], pointer: null,
		data: JSON.parse(find("script").textContent), tip: document.createElement("div")};

	chart.tip.className = "tip";
	chart.tip.hidden = true;
	find(".plot").append(chart.tip);
	if (chart.data.kind === "heatmap" && chart.data.cells.length)
		addButtons(chart, chart.data.layers.map(layer => layer.name));
	if (chart.data.kind === "histogram" && chart.data.bars.length)
		addButtons(chart, [chart.data.things, chart.data.things + ", logarithmic"]);
	listen(chart);
	charts.push(chart);
	new ResizeObserver(() => {
		if (chart.canvas.clientWidth !== chart.width)
			draw(chart);
	}).observe(chart.canvas);
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
/* Paper is light. */
addEventListener("beforeprint", () => {
	root.classList.add("print");
	drawAll();
});
addEventListener("afterprint", () => {
	root.classList.remove("print");
	drawAll();
});
drawAll();
})();

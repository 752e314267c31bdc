#!/bin/bash
# SPDX-License-Identifier: MIT
# browser.sh USERFAULT RECORD PAGE - the pages in a browser: no error, every chart is drawn, at several widths, and tells what it is pointed at.
set -u
userfault=$1 record=$2 page=$3

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
failed=0

# Errors are noted from the beginning; in the end each chart is looked at and pointed at, and the page says what was found.
cat >"$dir/first" <<'END'
<script>
window.problems = [];
addEventListener("error", event => problems.push(event.message));
addEventListener("securitypolicyviolation", event => problems.push("loads " + event.blockedURI));
</script>
END
cat >"$dir/last" <<'END'
<script>
{
	const results = [];
	const look = (canvas, name) => {
		const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data, colours = new Set();
		const plot = canvas.parentElement, tip = plot.querySelector(".tip"), box = canvas.getBoundingClientRect(), tips = new Set();

		for (let i = 0; i < pixels.length; i += 4)
			colours.add(pixels[i] << 16 | pixels[i + 1] << 8 | pixels[i + 2]);
		for (let x = 1; x < box.width; x += box.width / 24)
			for (let y = 1; y < box.height; y += box.height / 6) {
				canvas.dispatchEvent(new PointerEvent("pointermove", {clientX: box.left + x, clientY: box.top + y}));
				if (!tip.hidden)
					tips.add(tip.textContent);
			}
		if ([...tips].some(text => /NaN|undefined|Infinity|null/.test(text)))
			problems.push(name + ": " + [...tips].find(text => /NaN|undefined|Infinity|null/.test(text)));
		results.push(`${name}:${colours.size > 8 ? "drawn" : "blank"}:${tips.size ? "tells" : "silent"}`);
	};

	for (const canvas of document.querySelectorAll("canvas")) {
		const buttons = canvas.closest("figure").querySelectorAll("button");

		look(canvas, canvas.className);
		for (const button of buttons) {
			button.click();
			look(canvas, canvas.className);
		}
	}
	dispatchEvent(new Event("beforeprint"));
	dispatchEvent(new Event("afterprint"));
	if (document.documentElement.scrollWidth > innerWidth)
		problems.push(`wider than the window: ${document.documentElement.scrollWidth} > ${innerWidth}`);
	const out = document.createElement("pre");

	out.textContent = "results " + results.join(" ") + " problems " + JSON.stringify(problems) + " end";
	document.body.append(out);
}
</script>
END

check() { # PAGE EXPECTED WIDTH [CHROMIUM-OPTION...]
	local name=$1 expected=$2 width=$3 output result
	shift 3
	sed -e "/^<head>/r $dir/first" "$dir/$name.html" >"$dir/shown.html"
	cat "$dir/last" >>"$dir/shown.html"
	output=$(chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --user-data-dir="$dir/profile" \
		--window-size="$width,900" "$@" --dump-dom "file://$dir/shown.html" 2>/dev/null)
	result=$(grep -o 'results .* end' <<<"$output" | tail -n 1)
	if [[ "$result" != "results $expected problems [] end" ]]; then
		printf 'failed: %s, %s wide %s\nexpected %s\ngot      %s\n' "$name" "$width" "$*" "$expected" "${result:-nothing}" >&2
		failed=1
	fi
}

all() { # PAGE EXPECTED
	check "$1" "$2" 1280
	check "$1" "$2" 1280 --blink-settings=preferredColorScheme=0
	check "$1" "$2" 500
	check "$1" "$2" 500 --force-device-scale-factor=2
}

for scene in empty one service strange; do
	"$record" "$scene" "$dir/$scene" || exit 1
	"$userfault" report "$dir/$scene" --output "$dir/$scene.html" || exit 1
done
"$page" "$dir/page.html" || exit 1

h=heatmap:drawn:tells b=histogram:drawn:tells t=timeline:drawn:tells
all service "$h $h $h $h $h $b $b $b $t $t $t"
all page "$t $t $b $b $b $h $h $h"
# Of layers with nothing in them there is nothing to draw, but they can be pointed at.
check one "$h $h $h heatmap:drawn:tells heatmap:drawn:tells $b $b $b $t $t $t" 500
check strange "$h $h $h $h $h $b $b $b $t $t $t" 500
check empty "heatmap:drawn:silent histogram:drawn:silent timeline:drawn:silent timeline:drawn:silent timeline:drawn:silent" 500

exit $failed

// Charts with a zoom and values at the pointer, in place of the page's drawings, where ECharts is in the page. Their texts
// are SVG text (richText): no text of a run is read as HTML.

const DRAWN = [];

function drawCharts() {
  if (!globalThis.distilleryCharts || !META.charts) return;
  for (const [id, option] of Object.entries({losses: lossOption, lengths: lengthOption})) {
    const plot = document.querySelector(`#${id} .plot`);
    if (plot && META.charts[id]) whenSeen(plot, () => replaceDrawing(plot, option));
  }
}

function whenSeen(element, act) {
  const seen = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    seen.disconnect();
    act();
  }, {rootMargin: "200px"});
  seen.observe(element);
}

function replaceDrawing(plot, option) {
  const place = make("div", {class: "moving", role: "img", "aria-label": plot.getAttribute("aria-label")});
  plot.after(place);
  plot.hidden = true;
  const entry = {place, plot, option, chart: null};
  DRAWN.push(entry);
  draw(entry);
}

function draw(entry) {
  entry.chart?.dispose();
  entry.place.setAttribute("aria-label", entry.plot.getAttribute("aria-label"));
  entry.chart = distilleryCharts.init(entry.place, null, {renderer: "svg", locale: language === "zh" ? "ZH" : "EN"});
  entry.chart.setOption(entry.option());
}

// After another language or theme.
function redrawCharts() {
  DRAWN.forEach(draw);
}

addEventListener("resize", () => DRAWN.forEach(({chart}) => chart.resize()));

function colour(name) {
  const probe = make("i", {style: {color: name}});
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

function commonOption(xName, yName) {
  const [ink, soft, rule, card] = ["--ink", "--soft", "--rule", "--card"].map((name) => colour(`var(${name})`));
  const axis = {nameTextStyle: {color: soft}, axisLabel: {color: soft, margin: 10}, axisTick: {show: false}, axisLine: {lineStyle: {color: soft}}, splitLine: {lineStyle: {color: rule}}};
  return {
    animation: false,
    aria: {enabled: false}, // the element has the drawing's own label, and tables beside it have the numbers
    textStyle: {fontFamily: getComputedStyle(document.body).fontFamily},
    grid: {left: 56, right: 24, top: 28, bottom: 64},
    tooltip: {trigger: "axis", renderMode: "richText", backgroundColor: card, borderColor: soft, textStyle: {color: ink}},
    dataZoom: [{type: "inside"}, {type: "slider", height: 18, bottom: 8, textStyle: {color: soft}, borderColor: rule}],
    xAxis: {...axis, type: "value", name: xName, nameLocation: "middle", nameGap: 24},
    yAxis: {...axis, type: "value", name: yName},
  };
}

function line(name, data, of, more = {}) {
  return {type: "line", name, data, showSymbol: false, lineStyle: {width: 1.75, color: colour(of)}, itemStyle: {color: colour(of)}, ...more};
}

function lossOption() {
  const series = Object.entries(META.charts.losses).map(([arm, points]) => line(arm, points, colourOf(arm)));
  return {...commonOption(t("head.steps"), t("training.loss")), series};
}

function lengthOption() {
  const {curves, arms, cutoffs} = META.charts.lengths;
  const common = commonOption(t("flow.tokens"), "%");
  const lengths = [...Object.keys(cutoffs).map(Number), ...Object.values(curves).flat().map(([tokens]) => Math.max(1, tokens))];
  const power = (round, value) => 2 ** round(Math.log2(value));
  const [min, max] = [power(Math.floor, Math.min(...lengths)), power(Math.ceil, Math.max(...lengths) + 1)];
  const series = Object.entries(curves).map(([name, points]) => line(name, [...points.map(([tokens, share]) => [Math.max(1, tokens), 100 * share]), [max, 100]], colourOf(arms[name])));
  const soft = colour("var(--ink)");
  const marks = Object.entries(cutoffs).map(([tokens]) => ({xAxis: Number(tokens), label: {formatter: shown(Number(tokens)), color: soft}}));
  if (series.length) series[0].markLine = {symbol: "none", silent: true, lineStyle: {color: soft, type: "dashed"}, data: marks};
  return {...common, xAxis: {...common.xAxis, type: "log", logBase: 2, min, max}, yAxis: {...common.yAxis, min: 0, max: 100}, series};
}

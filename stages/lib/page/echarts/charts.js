// The parts of Apache ECharts that the page draws with: lines as SVG, in English and Chinese.
import {init, registerLocale, use} from "echarts/core";
import {LineChart} from "echarts/charts";
import {DataZoomComponent, GridComponent, MarkLineComponent, TooltipComponent} from "echarts/components";
import {SVGRenderer} from "echarts/renderers";
import zh from "echarts/i18n/langZH-obj.js";

use([LineChart, GridComponent, TooltipComponent, DataZoomComponent, MarkLineComponent, SVGRenderer]);
registerLocale("ZH", zh);
globalThis.distilleryCharts = {init};

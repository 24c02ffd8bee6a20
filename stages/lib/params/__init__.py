"""The schema of params.yaml: every key, its type and its valid values. It has no defaults, so DVC sees every value.

A choice is a tagged union (``teacher: {kind: embedded, …}``), which has only the keys that the chosen kind reads. Each
stage first validates the whole file. An error names the key, and the nearest known name or the kind that reads it:

    params.yaml: train.lerning_rate: unknown key. Did you mean 'learning_rate'?
    params.yaml: distill.teacher.base_url: kind embedded does not read it; kind openai_compatible does. Remove the …

    python -m stages.lib.params params.yaml            # check it, as a stage would
    python -m stages.lib.params --migrate params.yaml  # rewrite an older file as tagged unions

``run`` has what affects only speed and cost. No stage lists it among its params in dvc.yaml.
"""

from stages.lib.params.base import ParamsError as ParamsError
from stages.lib.params.base import Section as Section
from stages.lib.params.base import Share as Share
from stages.lib.params.checks import Check as Check
from stages.lib.params.checks import LanguageCheck as LanguageCheck
from stages.lib.params.checks import LengthCheck as LengthCheck
from stages.lib.params.checks import LoopsCheck as LoopsCheck
from stages.lib.params.checks import MarkersCheck as MarkersCheck
from stages.lib.params.checks import RefusalsCheck as RefusalsCheck
from stages.lib.params.checks import RepeatedQuestionCheck as RepeatedQuestionCheck
from stages.lib.params.collect import BenchmarkSource as BenchmarkSource
from stages.lib.params.collect import ChainSum as ChainSum
from stages.lib.params.collect import Collect as Collect
from stages.lib.params.collect import Columns as Columns
from stages.lib.params.collect import Contamination as Contamination
from stages.lib.params.collect import EvalData as EvalData
from stages.lib.params.collect import FileSource as FileSource
from stages.lib.params.collect import HubSource as HubSource
from stages.lib.params.collect import KeepHard as KeepHard
from stages.lib.params.collect import LoadedStudent as LoadedStudent
from stages.lib.params.collect import ModelScopeSource as ModelScopeSource
from stages.lib.params.collect import NearDuplicateParams as NearDuplicateParams
from stages.lib.params.collect import Preset as Preset
from stages.lib.params.collect import PresetSource as PresetSource
from stages.lib.params.collect import PublicBenchmark as PublicBenchmark
from stages.lib.params.collect import Source as Source
from stages.lib.params.convert import Convert as Convert
from stages.lib.params.convert import Markers as Markers
from stages.lib.params.convert import Tags as Tags
from stages.lib.params.evaluate import HELDOUT as HELDOUT
from stages.lib.params.evaluate import LM_EVAL as LM_EVAL
from stages.lib.params.evaluate import PREFERENCE as PREFERENCE
from stages.lib.params.evaluate import Churn as Churn
from stages.lib.params.evaluate import Compare as Compare
from stages.lib.params.evaluate import Evaluate as Evaluate
from stages.lib.params.evaluate import LoadedBackend as LoadedBackend
from stages.lib.params.evaluate import Prefer as Prefer
from stages.lib.params.evaluate import Report as Report
from stages.lib.params.evaluate import ServedBackend as ServedBackend
from stages.lib.params.filter import EmbeddedJudge as EmbeddedJudge
from stages.lib.params.filter import Filter as Filter
from stages.lib.params.filter import GoldFilter as GoldFilter
from stages.lib.params.filter import Judge as Judge
from stages.lib.params.filter import MajorityFilter as MajorityFilter
from stages.lib.params.filter import Reply as Reply
from stages.lib.params.filter import RubricFilter as RubricFilter
from stages.lib.params.filter import ScoreReply as ScoreReply
from stages.lib.params.filter import ServedJudge as ServedJudge
from stages.lib.params.filter import audit_of as audit_of
from stages.lib.params.filter import judge_of as judge_of
from stages.lib.params.loading import load_params as load_params
from stages.lib.params.presets import preset_named as preset_named
from stages.lib.params.presets import trace_preset_named as trace_preset_named
from stages.lib.params.prompts import RESPONSE as RESPONSE
from stages.lib.params.prompts import pairwise_prompt_text as pairwise_prompt_text
from stages.lib.params.prompts import phrases_named as phrases_named
from stages.lib.params.prompts import prompt_names as prompt_names
from stages.lib.params.prompts import prompt_text as prompt_text
from stages.lib.params.prompts import slotted_prompt_text as slotted_prompt_text
from stages.lib.params.run import Batch as Batch
from stages.lib.params.run import Engine as Engine
from stages.lib.params.run import LocalEngine as LocalEngine
from stages.lib.params.run import Price as Price
from stages.lib.params.run import Prices as Prices
from stages.lib.params.run import RayEngine as RayEngine
from stages.lib.params.run import Role as Role
from stages.lib.params.run import Run as Run
from stages.lib.params.run import ServedModels as ServedModels
from stages.lib.params.run import Server as Server
from stages.lib.params.score import FromAnswers as FromAnswers
from stages.lib.params.score import FromTeacher as FromTeacher
from stages.lib.params.score import Score as Score
from stages.lib.params.score import Scorer as Scorer
from stages.lib.params.tables import InFile as InFile
from stages.lib.params.tables import InHub as InHub
from stages.lib.params.tables import InModelScope as InModelScope
from stages.lib.params.tables import InPreset as InPreset
from stages.lib.params.tables import Published as Published
from stages.lib.params.tables import Scalar as Scalar
from stages.lib.params.tables import Where as Where
from stages.lib.params.teacher import Distill as Distill
from stages.lib.params.teacher import EmbeddedTeacher as EmbeddedTeacher
from stages.lib.params.teacher import Fault as Fault
from stages.lib.params.teacher import ServedTeacher as ServedTeacher
from stages.lib.params.teacher import Teacher as Teacher
from stages.lib.params.traces import MessagesColumns as MessagesColumns
from stages.lib.params.traces import SeparateColumns as SeparateColumns
from stages.lib.params.traces import TaggedColumns as TaggedColumns
from stages.lib.params.traces import TraceColumns as TraceColumns
from stages.lib.params.traces import TracePreset as TracePreset
from stages.lib.params.traces import Traces as Traces
from stages.lib.params.traces import TracesPreset as TracesPreset
from stages.lib.params.train import Arm as Arm
from stages.lib.params.train import Dataset as Dataset
from stages.lib.params.train import ExternalTrainer as ExternalTrainer
from stages.lib.params.train import LlamaFactory as LlamaFactory
from stages.lib.params.train import LocalStudent as LocalStudent
from stages.lib.params.train import Lora as Lora
from stages.lib.params.train import OnPolicyArm as OnPolicyArm
from stages.lib.params.train import OpenMind as OpenMind
from stages.lib.params.train import PublishedStudent as PublishedStudent
from stages.lib.params.train import Student as Student
from stages.lib.params.train import Swift as Swift
from stages.lib.params.train import SystemPrompt as SystemPrompt
from stages.lib.params.train import TemplateTrainer as TemplateTrainer
from stages.lib.params.train import Train as Train
from stages.lib.params.train import Trl as Trl
from stages.lib.params.whole import Params as Params
from stages.lib.params.whole import asked_models as asked_models

"""Classify a server's error: retry, fail one question, or end the run.

    transient    retry: a rate limit, an overloaded or broken server
    question     one row fails and is not retried in this run: a content filter, a prompt too long, any other 400
    run          the run ends: no credit, a wrong key, no such model, a daily limit

The error may be in the status, in the body of a 200, or in an event of a stream. The codes decide first, then the
sentence, then the status, because servers report missing credit as 400, 401, 402, 403, 429, 500 and inside a 200. The
rules hold codes and words as data, taken from public threads and from providers' tables of errors;
tests/test_teacher_errors.py has the bodies.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from stages.lib.replies.server_message import ServerMessage


class Scope(Enum):
    """What an error affects."""

    TRANSIENT = "transient"
    QUESTION = "question"
    RUN = "run"


class Subject(Enum):
    """What an error is about, where that is known."""

    CONTENT = "content"
    CREDIT = "credit"
    ACCESS = "access"
    LENGTH = "length"
    PERIOD = "period"
    RATE = "rate"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class ErrorClass:
    """What an error affects, and what it is about."""

    scope: Scope
    subject: Subject


@dataclass(frozen=True)
class Rule:
    """The codes (whole, in lower case) and the words of one subject."""

    subject: Subject
    scope: Scope
    codes: frozenset[str]
    words: re.Pattern[str]

    def has_code(self, message: ServerMessage) -> bool:
        """Whether the server states one of its codes."""
        return not self.codes.isdisjoint(message.codes)

    def has_words(self, message: ServerMessage) -> bool:
        """Whether the server's sentence has its words; some servers put the sentence where the code belongs."""
        return any(self.words.search(text) for text in (message.text, *message.codes))


def _rule(subject: Subject, scope: Scope, codes: str, words: Iterable[str]) -> Rule:
    return Rule(subject, scope, frozenset(codes.split()), re.compile("|".join(words), re.IGNORECASE))


CONTENT = _rule(
    Subject.CONTENT,
    Scope.QUESTION,
    "content_filter content_policy_violation contentpolicyviolationerror data_inspection_failed datainspectionfailed "
    "responsibleaipolicyviolation flagged_input invalid_prompt moderation_blocked content_filter_error 1301 "
    "sensitivecontentdetected inputtextsensitivecontentdetected outputtextsensitivecontentdetected "
    "sensitivecontentdetected.severeviolation contentfilter prohibited_content safety_check_failed",
    (
        r"content[ _-]?(filter|polic|management|moderation|safety|security)|content exists? risk|high risk",
        r"(in)?appropriate content|(input|prompt|content|request|text|output)\b.{0,60}\bflagged|flagged (for|as|by)\b",
        r"\bmoderation\b|(?<!case[- ])sensitive (content|word|info|topic)|new_sensitive|(safety|usage) (polic|system)",
        r"violat\w+\b.{0,60}\b(polic|guideline|safety|rule|law|regulation)|(unsafe|harmful|prohibited) content",
        r"敏感|违规|不当内容|不安全内容|内容安全|涉嫌违反|审核未通过",
    ),
)
CREDIT = _rule(
    Subject.CREDIT,
    Scope.RUN,
    "insufficient_quota exceeded_current_quota_error arrearage insufficient_balance insufficient_balance_error "
    "insufficient_user_quota pre_consume_token_quota_failed insufficient_credits insufficient_funds creditserror "
    "billing_hard_limit_reached billing_not_active accountoverdueerror accountoverdue overdue_payment payment_required "
    "paymentrequired allocationquota.freetieronly allocationquota budget_exceeded budgetexceedederror setlimitexceeded "
    "access_terminated_error credit_limit_exceeded out_of_credits failedoperation.resourcepackexhausted "
    "resourceinsufficient.chargeresourceexhaust failedoperation.freeresourcepackexhausted 1110 1112 1113 30001 30011",
    (
        r"(insufficient|not enough|no) (\w+ ){0,2}(balance|credits? (left|remaining)|funds?|quota)\b",
        r"insufficient (\w+ )?credits?|out of credits?|all available credits|requires more credits|payment required",
        r"(balance|quota|credits?) (is|are) (not enough|insufficient|(too )?low|exhausted|depleted)|spend(ing)? limit",
        r"(exceeded|over|beyond) (your |the |its )?(current |account |monthly )*(quota|budget)\b",
        r"budget (has been )?exceeded",
        r"free (quota|tier|trial|credits?)\b.{0,30}(exhausted|expired|used up|only)|quota has been (exhausted|used up)",
        r"account is in good standing|arrears|overdue|billing (hard limit|is not active)|quota \[.*not enough",
        r"please (recharge|top.?up|purchase|add (more )?(funds|credits?))|余额|欠费|充值",
        r"额度.{0,6}(不足|用尽|用完|耗尽)|额度已|配额.{0,4}(不足|用尽|用完|耗尽)|资源包.{0,6}(不足|用完|耗尽|到期)|点数不足",
    ),
)
ACCESS = _rule(
    Subject.ACCESS,
    Scope.RUN,
    "invalid_api_key invalidapikey api_key_invalid incorrect_api_key_error authentication_error authenticationerror "
    "invalid_authentication_error auth_error unauthenticated unauthorized permission_denied permissiondenied "
    "permissiondeniederror permission_error access_denied accessdenied accessdenied.unpurchased model.accessdenied "
    "account_deactivated account_suspended unsupported_country_region_territory request_forbidden model_not_found "
    "model_not_exist modelnotfound modelnotopen invalid_model model_not_supported not_found_error notfounderror "
    "resource_not_found_error deploymentnotfound invalidendpointormodel.notfound model_terms_required "
    "invalid_iam_token no_api_key 1000 1001 1002 1003 1004 1211 1220 1309 1311 20012",
    (
        r"(incorrect|invalid|wrong|missing|no|expired|unknown) (\w+ )?(api[ _-]?key|access key|credentials?)\b",
        r"api[ _-]?key.{0,30}(not valid|invalid|incorrect|expired|disabled|missing|not found)",
        r"authenticat\w+ (fail|error)",
        r"\binvalid (access |auth\w* |bearer )?token\b|\btoken (has |is |was )?(expired|invalid|revoked|disabled)",
        r"unauthori[sz]ed|not authori[sz]ed|authentication required|no auth credentials|user not found",
        r"\bmodels? not exist|\bmodels?\b.{0,80}(does(n't| not) exist|not found|no longer|deprecated|retired)",
        r"(no such|unknown|invalid|unsupported) model|not a valid model|no endpoints found",
        r"(country|region|location)\b.{0,30}not (supported|available)",
        r"account.{0,40}(suspended|deactivated|disabled|banned)",
        r"无效的?(令牌|密钥|api)|令牌.{0,6}(过期|无效|禁用)|鉴权|身份验证失败|模型.{0,20}不存在|无可用渠道|无权(限|访问)",
    ),
)
LENGTH = _rule(
    Subject.LENGTH,
    Scope.QUESTION,
    "context_length_exceeded string_above_max_length context_window_exceeded contextwindowexceedederror 1261 "
    "prompt_too_long request_too_large exceed_context_size_error",
    (
        r"(context|sequence|prompt|input)[ _-]?(length|window|size)\b.{0,60}(\d|exceed|limit|maxim)|maximum context",
        r"(prompt|input|messages?|request) (is |are )?too (long|large)|reduce the length|range of input length",
        r"prompt_tokens?.{0,40}(less|exceed)|exceeds? .{0,40}(context|max(imum)?[ _]).{0,20}(tokens?|length|len)",
        r"max_seq_len|超长|上下文.{0,8}超",
    ),
)
PERIOD = _rule(  # a limit per day, week or month: a retry in the same run cannot help, unless the stated wait is short
    Subject.PERIOD,
    Scope.RUN,
    "1304 1308 1310 daily_limit_exceeded",
    (
        r"(per|a|each)[ -](day|week|month)\b|\b(daily|weekly|monthly)\b.{0,30}(limit|quota|allowance|cap)",
        r"usage limit (reached|exceeded)|limit will reset",
        r"(当日|今日|每日|本周|每周|本月|每月).{0,12}(上限|限额|额度|次数|配额)",
    ),
)
RATE = _rule(
    Subject.RATE,
    Scope.TRANSIENT,
    "rate_limit_exceeded rate_limit_error rate_limit_reached_error rate_limited ratelimiterror limit_requests "
    "limit_tokens limit_burst_rate engine_overloaded_error overloaded_error overloaded serveroverloaded throttling "
    "throttling.ratequota throttling.burstrate throttling.allocationquota throttling.user too_many_requests timeout "
    "server_error internal_error internal_server_error internalservererror internalerror service_unavailable "
    "serviceunavailableerror unavailable provider_unavailable gateway_timeout bad_gateway network_error upstream_error "
    "model_loading 1234 1302 1303 1305 1312 50505 50508 50603",
    (
        r"rate.?limit|too many (concurrent )?requests|\b(rpm|tpm|qps)\b.{0,12}limit",
        r"overload|server is busy|system is too busy",
        r"限流|频率|速率|并发.{0,8}(上限|超|高)|繁忙|访问量过大|负载已?饱和",
    ),
)
CHECKED_FIRST = (CONTENT, CREDIT, ACCESS, LENGTH)  # in this order: "Your input was flagged. No credits were charged."
GOOGLE_RATE_LIMIT = (
    "resource_exhausted"  # comes with "You exceeded your current quota", which elsewhere means no credit
)

TRANSIENT_STATUS = (408, 409, 421, 424, 425, 429, 498, 499)
RUN_ENDING_STATUS = (401, 402, 403, 404, 405, 407, 410, 411, 426, 501, 505)
BAD_REQUEST_CODE = re.compile(r"invalid_?request|bad_?request|invalid_?parameter|unprocessable|invalid_?argument")

HINTS: tuple[tuple[str, str], ...] = (  # what to change, by the sentence that refuses every question
    (r"non-?stream|only supports? stream|stream mode|enable the stream|非流式|流式", "Set run.stream to true"),
    (r"stream_options|\bstream\b.{0,40}(not support|unsupported)", "Set run.stream to false"),
    (r"enable_thinking|thinking|reasoning_effort|chat_template_kwargs", "Change {section}.extra_body"),
    (r"temperature", "Change {section}.temperature (null is not sent)"),
    (r"top_p", "Change {section}.top_p (null is not sent)"),
    (r"max_(completion_|new_|output_)?tokens|context|max_seq_len|too long", "Change {section}.max_tokens"),
    (r"extra (inputs|fields)|unrecognized|unknown|unexpected|unsupported", "Change {section}.extra_body"),
    (r"\bmodel\b|模型", "Change {section}.model"),
)


def classify_error(status: int, message: ServerMessage) -> ErrorClass:
    """Classify an error by its HTTP status and message; where a 200 states a status, it is among the codes."""
    if GOOGLE_RATE_LIMIT in message.codes:
        return ErrorClass(Scope.TRANSIENT, Subject.RATE)
    for applies in (Rule.has_code, Rule.has_words):
        for rule in CHECKED_FIRST:
            if applies(rule, message):
                return ErrorClass(rule.scope, rule.subject)
    for rule in (PERIOD, RATE):
        if rule.has_code(message) or rule.has_words(message):
            return ErrorClass(rule.scope, rule.subject)
    return ErrorClass(_by_status(message.status if status < 300 else status, message), Subject.UNKNOWN)


def hint_for(message: ServerMessage, section: str) -> str:
    """What to change so that the server accepts the questions: ``Set run.stream to true``."""
    text = " ".join((message.text, *sorted(message.codes)))
    found = next((hint for words, hint in HINTS if re.search(words, text, re.IGNORECASE)), "Check {section}")
    return found.format(section=section) + " in params.yaml"


def _by_status(status: int | None, message: ServerMessage) -> Scope:
    if status is None:
        wrong = any(BAD_REQUEST_CODE.search(code) for code in message.codes)
        return Scope.QUESTION if wrong else Scope.TRANSIENT
    if status in RUN_ENDING_STATUS or status < 400:
        return Scope.RUN
    return Scope.TRANSIENT if status in TRANSIENT_STATUS or status >= 500 else Scope.QUESTION

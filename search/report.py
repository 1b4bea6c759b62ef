"""placeholder"""

from .result import Result


def report_html(result: Result) -> str:
    return "<html></html>"

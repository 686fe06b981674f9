"""All cases by name: each is a function that returns a list of tensors."""

from . import (
    cases_cuts,
    cases_errors,
    cases_interfaces,
    cases_kinds,
    cases_own,
    cases_resumed,
    cases_temporal,
    cases_windows,
)

CASES = {
    **cases_cuts.CASES,
    **cases_windows.CASES,
    **cases_kinds.CASES,
    **cases_interfaces.CASES,
    **cases_temporal.CASES,
    **cases_own.CASES,
    **cases_resumed.CASES,
    **cases_errors.CASES,
}

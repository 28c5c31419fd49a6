"""The operations that are run, with what each is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pamola_core.anonymization.generalization.categorical_op import (
    CategoricalGeneralizationOperation,
)
from pamola_core.anonymization.generalization.datetime_op import DateTimeGeneralizationOperation
from pamola_core.anonymization.generalization.numeric_op import NumericGeneralizationOperation
from pamola_core.anonymization.masking.full_masking_op import FullMaskingOperation
from pamola_core.anonymization.masking.partial_masking_op import PartialMaskingOperation
from pamola_core.anonymization.noise.uniform_numeric_op import UniformNumericNoiseOperation
from pamola_core.anonymization.pseudonymization.hash_based_op import (
    HashBasedPseudonymizationOperation,
)
from pamola_core.anonymization.suppression.attribute_op import AttributeSuppressionOperation
from pamola_core.anonymization.suppression.cell_op import CellSuppressionOperation
from pamola_core.anonymization.suppression.record_op import RecordSuppressionOperation
from pamola_core.fake_data.operations.email_op import FakeEmailOperation
from pamola_core.fake_data.operations.name_op import FakeNameOperation
from pamola_core.fake_data.operations.phone_op import FakePhoneOperation
from pamola_core.metrics.operations.fidelity_ops import FidelityOperation
from pamola_core.metrics.operations.privacy_ops import PrivacyMetricOperation
from pamola_core.metrics.operations.utility_ops import UtilityMetricOperation
from pamola_core.profiling.analyzers.group import GroupAnalyzerOperation
from pamola_core.profiling.analyzers.identity import IdentityAnalysisOperation
from pamola_core.profiling.analyzers.mvf import MVFOperation
from pamola_core.transformations.cleaning.clean_invalid_values import CleanInvalidValuesOperation
from pamola_core.transformations.field_ops.add_modify_fields import AddOrModifyFieldsOperation
from pamola_core.transformations.field_ops.remove_fields import RemoveFieldsOperation
from pamola_core.transformations.grouping.aggregate_records_op import AggregateRecordsOperation
from pamola_core.transformations.imputation.impute_missing_values import (
    ImputeMissingValuesOperation,
)
from pamola_core.transformations.merging.merge_datasets_op import MergeDatasetsOperation
from pamola_core.transformations.splitting.split_by_id_values_op import SplitByIDValuesOperation
from pamola_core.transformations.splitting.split_fields_op import SplitFieldsOperation

KEY = "a passphrase of the benchmark"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One operation: its class, what it is built from, and what its ``run`` is given."""

    name: str
    operation: Callable[..., Any]
    given: Mapping[str, Any] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)


def cases() -> list[Case]:
    """All cases, family by family."""
    return [*_anonymize(), *_transform(), *_fake(), *_profile(), *_metrics()]


def _anonymize() -> list[Case]:
    return [
        Case(
            name="generalize numbers",
            operation=NumericGeneralizationOperation,
            given={"field_name": "salary", "strategy": "binning", "bin_count": 6},
        ),
        Case(
            name="generalize dates",
            operation=DateTimeGeneralizationOperation,
            given={"field_name": "birth_date", "strategy": "rounding", "rounding_unit": "month"},
        ),
        Case(
            name="generalize categories",
            operation=CategoricalGeneralizationOperation,
            given={"field_name": "job", "strategy": "merge_low_freq", "min_group_size": 80},
        ),
        Case(name="mask fully", operation=FullMaskingOperation, given={"field_name": "last_name"}),
        Case(
            name="mask partially",
            operation=PartialMaskingOperation,
            given={"field_name": "email", "unmasked_prefix": 2, "unmasked_suffix": 4},
        ),
        Case(
            name="add noise",
            operation=UniformNumericNoiseOperation,
            given={
                "field_name": "age",
                "noise_range": 3.0,
                "random_seed": 7,
                "use_secure_random": False,
            },
        ),
        Case(
            name="pseudonymize",
            operation=HashBasedPseudonymizationOperation,
            given={
                "field_name": "email",
                "use_pepper": False,
                "salt_config": {"source": "parameter", "value": "5a" * 32},
            },
        ),
        Case(
            name="suppress attributes",
            operation=AttributeSuppressionOperation,
            given={"field_name": "phone", "additional_fields": ["email"]},
        ),
        Case(
            name="suppress records",
            operation=RecordSuppressionOperation,
            given={"field_name": "job", "save_suppressed_records": True},
        ),
        Case(
            name="suppress cells",
            operation=CellSuppressionOperation,
            given={
                "field_name": "salary",
                "suppression_strategy": "median",
                "suppress_if": "outlier",
            },
        ),
    ]


def _transform() -> list[Case]:
    return [
        Case(
            name="split by values",
            operation=SplitByIDValuesOperation,
            given={
                "id_field": "city",
                "value_groups": {"west": ["Vancouver", "Calgary"], "east": ["Halifax"]},
            },
        ),
        Case(
            name="split fields",
            operation=SplitFieldsOperation,
            given={
                "id_field": "id",
                "field_groups": {"names": ["first_name", "last_name"], "money": ["salary"]},
            },
        ),
        Case(
            name="merge",
            operation=MergeDatasetsOperation,
            given={"right_dataset_name": "cards", "left_key": "id", "right_key": "holder"},
        ),
        Case(
            name="add fields",
            operation=AddOrModifyFieldsOperation,
            given={
                "field_operations": {
                    "country": {"operation_type": "add_constant", "constant_value": "Canada"}
                }
            },
        ),
        Case(
            name="remove fields",
            operation=RemoveFieldsOperation,
            given={"fields_to_remove": ["phone", "email"]},
        ),
        Case(
            name="impute",
            operation=ImputeMissingValuesOperation,
            given={
                "field_strategies": {
                    "salary": {"data_type": "numeric", "imputation_strategy": "median"}
                }
            },
        ),
        Case(
            name="clean",
            operation=CleanInvalidValuesOperation,
            given={
                "field_constraints": {"age": {"constraint_type": "max_value", "max_value": 65}},
            },
        ),
        Case(
            name="aggregate",
            operation=AggregateRecordsOperation,
            given={
                "group_by_fields": ["city", "gender"],
                "aggregations": {"salary": ["mean", "count"], "age": ["max"]},
            },
        ),
    ]


def _fake() -> list[Case]:
    consistent = {"key": "benchmark", "consistency_mechanism": "prgn", "context_salt": "salt"}
    return [
        Case(
            name="fake names",
            operation=FakeNameOperation,
            given={"field_name": "full_name", "gender_field": "gender", **consistent},
        ),
        Case(
            name="fake e-mail",
            operation=FakeEmailOperation,
            given={"field_name": "email", **consistent},
        ),
        Case(
            name="fake telephones",
            operation=FakePhoneOperation,
            given={"field_name": "phone", **consistent},
        ),
    ]


def _profile() -> list[Case]:
    return [
        Case(
            name="profile lists",
            operation=MVFOperation,
            given={"field_name": "skills", "format_type": "array_string"},
        ),
        Case(
            name="profile groups",
            operation=GroupAnalyzerOperation,
            given={"field_name": "person", "fields_config": {"city": 1, "job": 2}},
        ),
        Case(
            name="profile identity",
            operation=IdentityAnalysisOperation,
            given={
                "uid_field": "person",
                "reference_fields": ["first_name", "last_name"],
                "id_field": "id",
            },
        ),
    ]


def _metrics() -> list[Case]:
    compared = {"original_dataset_name": "main", "transformed_dataset_name": "shifted"}
    columns = ["age", "children"]
    linear = {"models": ["linear"], "metrics": ["r2"], "cv_folds": 2, "value_field": "age"}
    return [
        Case(
            name="metrics of fidelity",
            operation=FidelityOperation,
            given={"fidelity_metrics": ["ks"], "columns": columns},
            run=compared,
        ),
        Case(
            name="metrics of privacy",
            operation=PrivacyMetricOperation,
            given={"privacy_metrics": ["dcr"], "columns": columns},
            run=compared,
        ),
        Case(
            name="metrics of utility",
            operation=UtilityMetricOperation,
            given={
                "utility_metrics": ["regression"],
                "metric_params": {"regression": linear},
                "columns": columns,
            },
            run=compared,
        ),
    ]

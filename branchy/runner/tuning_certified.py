"""Another vector of the certified set in the place of a bundle's own: the promise holds for each of them."""

from __future__ import annotations

from branchy.core.cascade import override_exits
from branchy.errors import UsageError
from branchy.runner.tuning import TuneOptions, check_options, target_of
from branchy.store.bundle import Bundle
from branchy.store.writer import rewrite_bundle


def take_certified(bundle: Bundle, options: TuneOptions) -> Bundle:
    """Write a bundle with other certified thresholds and the same certificate; nothing is measured.

    As it has a digest of its own, all tiers of a cascade change their thresholds at once: no sample meets
    some of one vector and some of another, which together are not certified.

    Args:
        bundle: with a certificate.
        options: `certified`, and where to write.

    Raises:
        UsageError: no certificate, no such vector, options that exclude each other, or see `rewrite_bundle`.
    """
    if options.certified is None:
        raise UsageError("expected DATASET to choose thresholds by, or --certified N without one")
    check_options(options)
    if options.policy is not None or options.unseen:
        raise UsageError("--certified takes what was certified as it is: leave out --policy and --unseen")
    certificate, number = bundle.manifest.certificate, options.certified
    if certificate is None:
        raise UsageError(f"--certified: bundle {bundle.path} has no certificate; make one with branchy tune --alpha")
    if not 1 <= number <= len(certificate.certified):
        raise UsageError(
            f"--certified: expected a number from 1, the safest, to {len(certificate.certified)}, "
            f"got {number}; branchy inspect --json lists them"
        )
    spec = bundle.spec
    for fmt in dict.fromkeys(certificate.formats.values()):
        spec = override_exits(spec, fmt, policy=None, thresholds=certificate.certified[number - 1].thresholds)
    return rewrite_bundle(bundle, target_of(bundle, options), spec, certificate, overwrite=options.overwrite)

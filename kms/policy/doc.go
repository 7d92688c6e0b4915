// Package policy owns the decisions: the Cedar schema, the shipped policies,
// and the [Engine] that decides whether a boot receives a secret and whether an
// operator may act. docs/policy.md is for those who write policies.
//
// Invariants:
//   - Deny by default: without a policy that permits, nothing is allowed. An
//     engine that is nil or zero allows nothing, and none is made of no policies.
//   - A policy that fails while it is evaluated denies, whatever the others
//     say: it might have been the one that forbids.
//   - A decision depends on its arguments alone, and equal arguments give equal
//     decisions, in content and in order.
//   - An engine never changes; a new policy is a new engine.
//
// It refuses policies that do not parse, do not type-check against the schema,
// or have no id of their own. cedar-go's schema packages are experimental and
// used here only.
package policy

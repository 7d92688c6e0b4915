package policy

import (
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
)

// Decision is what an [Engine] decided. It belongs in the audit log.
type Decision struct {
	Allowed bool
	// Policies are the sorted ids of the policies that determined the decision:
	// those that permit, or those that forbid, or those that failed. A denial
	// without any means that nothing permits.
	Policies []string
	// Errors say, in the order of Policies, why policies failed, or why there
	// was nothing to decide by.
	Errors []string
}

// String returns one line, such as "refused by forbid-identity-tier".
func (d Decision) String() string {
	names := strings.Join(d.Policies, ", ")
	switch {
	case d.Allowed:
		return "allowed by " + names
	case len(d.Errors) > 0:
		return "refused: " + strings.Join(d.Errors, "; ")
	case len(d.Policies) > 0:
		return "refused by " + names
	default:
		return "refused: no policy permits it"
	}
}

// deny is a decision without policies.
func deny(reason string) Decision {
	return Decision{Errors: []string{reason}}
}

// decisionOf turns Cedar's result around where a policy failed: Cedar ignores
// such a policy, which would drop a failing forbid.
func decisionOf(result cedar.Decision, diagnostic cedar.Diagnostic) Decision {
	var d Decision
	for _, failed := range diagnostic.Errors {
		d.Policies = append(d.Policies, string(failed.PolicyID))
		d.Errors = append(d.Errors, failureOf(failed))
	}
	if len(d.Errors) > 0 {
		return d
	}
	d.Allowed = result == types.Allow
	for _, reason := range diagnostic.Reasons {
		d.Policies = append(d.Policies, string(reason.PolicyID))
	}
	slices.Sort(d.Policies)
	return d
}

// maxFailure bounds what a failing policy says, in bytes.
const maxFailure = 512

func failureOf(failed cedar.DiagnosticError) string {
	message := failed.Message
	if len(message) > maxFailure {
		message = strings.ToValidUTF8(message[:maxFailure], "") + "…"
	}
	return "policy " + string(failed.PolicyID) + " failed: " + message
}

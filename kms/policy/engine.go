package policy

import (
	"fmt"
	"iter"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
)

// Engine decides by one set of policies. It never changes and is safe for
// concurrent use; whoever loads new policies makes a new one and swaps it.
type Engine struct {
	model    *model
	policies policyList
}

// policyList is ordered by id, so that decisions are.
type policyList []namedPolicy

type namedPolicy struct {
	id     cedar.PolicyID
	policy *cedar.Policy
}

// All implements [cedar.PolicyIterator].
func (l policyList) All() iter.Seq2[cedar.PolicyID, *cedar.Policy] {
	return func(yield func(cedar.PolicyID, *cedar.Policy) bool) {
		for _, p := range l {
			if !yield(p.id, p.policy) {
				return
			}
		}
	}
}

// noPolicy is the reason of every decision without policies.
const noPolicy = "no policy is loaded"

// empty reports an engine that [New] did not make.
func (e *Engine) empty() bool { return e == nil || e.model == nil }

// Actions returns the operators' actions, sorted by name.
func (e *Engine) Actions() []Action {
	if e.empty() {
		return nil
	}
	return e.model.sorted()
}

// Action returns the operators' action of that name.
func (e *Engine) Action(name string) (Action, bool) {
	if e.empty() {
		return Action{}, false
	}
	a, ok := e.model.actions[name]
	return a, ok
}

// Release decides whether machine m receives the secret of volume v in boot b.
// It is to be asked for each volume, in the transaction that read m and v.
func (e *Engine) Release(m Machine, v Volume, b Boot) Decision {
	if e.empty() {
		return deny(noPolicy)
	}
	resource := v.entities()
	return e.decide(cedar.Request{
		Principal: m.uid(),
		Action:    types.NewEntityUID(actionType, actionRelease),
		Resource:  resource[0].UID,
		Context:   b.context(),
	}, append(m.entities(), resource...), b.evidence)
}

// Stage decides whether machine m may announce, in the running boot b, the boots
// that can follow it.
func (e *Engine) Stage(m Machine, b Boot) Decision { return e.own(m, actionStage, b) }

// AddVolume decides whether machine m may add volumes in the running boot b. It is
// to be asked in the transaction that read m.
func (e *Engine) AddVolume(m Machine, b Boot) Decision { return e.own(m, actionAddVolume, b) }

// UseKeys decides whether machine m may use keyring k for its applications in the
// running boot b. It is to be asked in the transaction that read m.
func (e *Engine) UseKeys(m Machine, k Keyring, b Boot) Decision {
	if e.empty() {
		return deny(noPolicy)
	}
	resource := k.entities()
	return e.decide(cedar.Request{
		Principal: m.uid(),
		Action:    types.NewEntityUID(actionType, actionUseKeys),
		Resource:  resource[0].UID,
		Context:   b.context(),
	}, append(m.entities(), resource...), b.evidence)
}

// own decides about what a machine does to itself.
func (e *Engine) own(m Machine, action types.String, b Boot) Decision {
	if e.empty() {
		return deny(noPolicy)
	}
	return e.decide(cedar.Request{
		Principal: m.uid(),
		Action:    types.NewEntityUID(actionType, action),
		Resource:  m.uid(),
		Context:   b.context(),
	}, m.entities(), b.evidence)
}

// Operate decides whether o may do the named action to the resource. An action
// that the schema doesn't have, or has for another kind of resource, is denied.
func (e *Engine) Operate(o Operator, action string, r Resource, c Call) Decision {
	if e.empty() {
		return deny(noPolicy)
	}
	known, ok := e.model.actions[action]
	if !ok {
		return deny(fmt.Sprintf("there is no action %.64q", action))
	}
	resource := r.entities()
	if kind := string(resource[0].UID.Type); kind != known.Resource {
		return deny(fmt.Sprintf("action %s applies to %s, not to %s", action, known.Resource, kind))
	}
	principal := o.entity()
	return e.decide(cedar.Request{
		Principal: principal.UID,
		Action:    uid(actionType, action),
		Resource:  resource[0].UID,
		Context:   types.NewRecord(c.attributes()),
	}, append(resource, principal), nil)
}

func (e *Engine) decide(request cedar.Request, known []types.Entity, evidence func() types.Entity) Decision {
	return decisionOf(cedar.Authorize(e.policies, &world{known: known, model: e.model, evidence: evidence}, request))
}

// world is what policies can look up during one decision. The first entity of
// a uid counts.
type world struct {
	known []types.Entity
	model *model
	// evidence builds the claims, which most policies never look at.
	evidence func() types.Entity
	built    *types.Entity
}

// Get implements [types.EntityGetter].
func (w *world) Get(uid types.EntityUID) (types.Entity, bool) {
	switch uid.Type {
	case actionType:
		action, ok := w.model.schema.Actions[uid]
		return action.Entity, ok
	case evidenceType:
		return w.getEvidence()
	}
	for _, e := range w.known {
		if e.UID == uid {
			return e, true
		}
	}
	return types.Entity{}, false
}

func (w *world) getEvidence() (types.Entity, bool) {
	if w.evidence == nil {
		return types.Entity{}, false
	}
	if w.built == nil {
		built := w.evidence()
		w.built = &built
	}
	return *w.built, true
}

package policy

import (
	"fmt"
	"slices"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// checkEnums refuses a policy that names an object which cannot exist, such as
// Role::"admn": cedar-go's validator lets it pass, and a forbid would never apply.
func (m *model) checkEnums(p *ast.Policy) error {
	for _, uid := range literals(p) {
		enum, ok := m.schema.Enums[uid.Type]
		if ok && !slices.Contains(enum.Values, uid) {
			return fmt.Errorf("there is no %s", uid)
		}
	}
	return nil
}

// literals returns every object that the policy names.
func literals(p *ast.Policy) []types.EntityUID {
	uids := append(scopeLiterals(p.Principal), scopeLiterals(p.Resource)...)
	for _, condition := range p.Conditions {
		ast.Inspect(ast.NewNode(condition.Body), func(n ast.IsNode) bool {
			if value, ok := n.(ast.NodeValue); ok {
				if uid, ok := value.Value.(types.EntityUID); ok {
					uids = append(uids, uid)
				}
			}
			return true
		})
	}
	return uids
}

// scopeLiterals returns the object of a principal's or a resource's scope; the
// validator checks actions.
func scopeLiterals(scope any) []types.EntityUID {
	switch s := scope.(type) {
	case ast.ScopeTypeEq:
		return []types.EntityUID{s.Entity}
	case ast.ScopeTypeIn:
		return []types.EntityUID{s.Entity}
	case ast.ScopeTypeIsIn:
		return []types.EntityUID{s.Entity}
	default:
		return nil
	}
}

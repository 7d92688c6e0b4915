package policy

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
)

//go:embed schema.cedarschema
var schemaText []byte

// Schema returns the Cedar schema as text, which editors and the cedar program
// read.
func Schema() string { return string(schemaText) }

const (
	actionType = types.EntityType("Action")

	operatorType = types.EntityType("Operator")

	// The actions of machines.
	actionRelease   = types.String("boot.release")
	actionStage     = types.String("boot.stage")
	actionAddVolume = types.String("volume.add")
)

// Class says what an operator's action can do, and so what it takes to do it.
type Class string

// The classes.
const (
	Read     Class = "read"     // changes nothing
	Propose  Class = "propose"  // changes nothing until somebody approves it
	Maintain Class = "maintain" // changes how secrets are kept, and nobody's rights
	Protect  Class = "protect"  // takes rights away for the time being
	Grant    Class = "grant"    // gives rights or trust
	Destroy  Class = "destroy"  // irreversible
	Disclose Class = "disclose" // lets secrets, wrapped or not, out of the service
)

// Action is one of the operators' actions. Each route names one.
type Action struct {
	Name  string // such as machine.approve
	Class Class
	// Resource is the kind of object that it acts on: Machine, Volume,
	// Measurement, Keyring, Service or Log.
	Resource string
}

// model is the schema, resolved.
type model struct {
	schema *resolved.Schema
	// actions are the operators', by name.
	actions map[string]Action
}

func loadModel() (*model, error) {
	var parsed schema.Schema
	if err := parsed.UnmarshalCedar(schemaText); err != nil {
		return nil, fmt.Errorf("loading the policy schema: %w", err)
	}
	resolvedSchema, err := parsed.Resolve()
	if err != nil {
		return nil, fmt.Errorf("loading the policy schema: %w", err)
	}
	m := &model{schema: resolvedSchema, actions: make(map[string]Action)}
	for uid, action := range resolvedSchema.Actions {
		if action.AppliesTo == nil || !slices.Contains(action.AppliesTo.Principals, operatorType) {
			continue
		}
		if err := m.addAction(uid, action); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// addAction holds the schema to what a route needs: one class, one kind of object.
func (m *model) addAction(uid types.EntityUID, action resolved.Action) error {
	classes := slices.Collect(action.Entity.Parents.All())
	resources := action.AppliesTo.Resources
	if len(classes) != 1 || len(resources) != 1 {
		return fmt.Errorf("loading the policy schema: action %s has %d classes and %d kinds of resource, want one each",
			uid.ID, len(classes), len(resources))
	}
	name := string(uid.ID)
	m.actions[name] = Action{name, Class(classes[0].ID), string(resources[0])}
	return nil
}

// sorted returns the operators' actions by name.
func (m *model) sorted() []Action {
	actions := make([]Action, 0, len(m.actions))
	for _, a := range m.actions {
		actions = append(actions, a)
	}
	slices.SortFunc(actions, func(a, b Action) int { return strings.Compare(a.Name, b.Name) })
	return actions
}

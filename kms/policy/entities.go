package policy

import (
	"net/netip"
	"time"

	"github.com/cedar-policy/cedar-go/types"

	"keywright.dev/kms/claims"
)

// Resource is what an operator acts on: [Machine], [Volume], [Measurement],
// [Keyring], [Service] or [Log].
type Resource interface {
	// entities returns the object first, then the objects that it is in.
	entities() []types.Entity
}

// Machine is a machine as policies see it.
type Machine struct {
	ID     string // hash of the EK's public area
	Name   string // empty until approved
	Group  string // empty until it has one
	Status string // policies speak of "active"
}

func (m Machine) uid() types.EntityUID { return uid("Machine", m.ID) }

func (m Machine) entities() []types.Entity {
	return []types.Entity{{
		UID:     m.uid(),
		Parents: groupOf(m.Group),
		Attributes: types.NewRecord(types.RecordMap{
			"name": types.String(m.Name), "status": types.String(m.Status),
		}),
	}}
}

// Volume is a volume as policies see it.
type Volume struct {
	ID      string
	Machine Machine // its owner, as its row says
}

func (v Volume) entities() []types.Entity {
	owner := v.Machine.uid()
	return append([]types.Entity{{
		UID:        uid("Volume", v.ID),
		Parents:    types.NewEntityUIDSet(owner),
		Attributes: types.NewRecord(types.RecordMap{"machine": owner}),
	}}, v.Machine.entities()...)
}

// Measurement is a measurement as policies see it.
type Measurement struct {
	ID    string // digest, hex; empty for one that is being submitted
	Group string
}

func (m Measurement) entities() []types.Entity {
	return []types.Entity{{UID: uid("Measurement", m.ID), Parents: groupOf(m.Group)}}
}

// Keyring is a keyring as policies see it.
type Keyring struct {
	Name string
}

func (k Keyring) entities() []types.Entity {
	return []types.Entity{{UID: uid("Keyring", k.Name)}}
}

// Service is the installation.
type Service struct{}

func (Service) entities() []types.Entity {
	return []types.Entity{{UID: uid("Service", "keywright")}}
}

// Log is the audit log.
type Log struct{}

func (Log) entities() []types.Entity {
	return []types.Entity{{UID: uid("Log", "audit")}}
}

// Role is one of the shipped roles.
type Role string

// The roles that the shipped policies give rights to.
const (
	RoleViewer   Role = "viewer"
	RoleOperator Role = "operator"
	RoleSecurity Role = "security"
	RoleAuditor  Role = "auditor"
	RoleAdmin    Role = "admin"
	// RoleRotation is the service's own, for what it rotates by its schedule.
	RoleRotation Role = "rotation"
)

// Operator is a person or a program that operates the service.
type Operator struct {
	ID    string // such as uid/0 for the unix socket's user
	Roles []Role
}

func (o Operator) entity() types.Entity {
	roles := make([]types.EntityUID, 0, len(o.Roles))
	for _, role := range o.Roles {
		roles = append(roles, uid("Role", string(role)))
	}
	return types.Entity{UID: uid("Operator", o.ID), Parents: types.NewEntityUIDSet(roles...)}
}

// Call is what is known of an operator's call.
type Call struct {
	Source netip.Addr // the zero address on the unix socket
	Time   time.Time
}

func (c Call) attributes() types.RecordMap {
	attributes := types.RecordMap{"time": types.NewDatetime(c.Time)}
	if c.Source.IsValid() {
		attributes["source"] = address(c.Source)
	}
	return attributes
}

// Boot is what is known of a boot once its evidence verified.
type Boot struct {
	Measurement claims.Set
	// Approved says that the whole measurement is approved for the machine's
	// group, by the approval named Matched.
	Approved bool
	Matched  string

	Platform claims.Set
	// PlatformApproved says that the platform is approved for the machine.
	PlatformApproved bool

	State  claims.Set
	Source netip.Addr // the zero address where it is not known
	Time   time.Time
}

func uid(kind types.EntityType, id string) types.EntityUID {
	return types.NewEntityUID(kind, types.String(id))
}

func groupOf(name string) types.EntityUIDSet {
	if name == "" {
		return types.EntityUIDSet{}
	}
	return types.NewEntityUIDSet(uid("Group", name))
}

// address forgets a zone and the mapping of IPv4 into IPv6, so that a range in
// a policy means the same on every listener.
func address(ip netip.Addr) types.IPAddr {
	ip = ip.Unmap().WithZone("")
	return types.IPAddr(netip.PrefixFrom(ip, ip.BitLen()))
}

package server

import (
	"cmp"
	"context"
	"math"
	"net/http"
	"time"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
	"keywright.dev/kms/policy"
)

// RefInput is an input whose path names one object. The bound is wider than any
// name's: what is wrong with a name is for the domain to say. It is exported for
// huma, which fills no embedded type that is not.
type RefInput struct {
	Ref string `path:"ref" maxLength:"256" doc:"A name, an id, or the beginning of an id that no other one has."`
}

// PageInput is an input that asks for a page of a list.
type PageInput struct {
	After string `query:"after" maxLength:"256" doc:"The value of next in the page before."`
	Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"The most items to return."`
}

// DryRunInput is an input that may ask what a change would do. It is exported as
// RefInput is.
type DryRunInput struct {
	DryRun bool `query:"dry_run" doc:"Decide as usual, refuse what would be refused, and change nothing."`
}

// operator is the caller who asks for a change.
func (d *DryRunInput) operator(ctx context.Context) kms.Operator {
	by := stateOf(ctx).operator()
	by.DryRun = d.DryRun
	return by
}

type (
	listMachinesInput struct {
		PageInput
		Status string `query:"status" enum:"pending,active,revoked" doc:"Only machines with this status."`
		Group  string `query:"group" maxLength:"64" doc:"Only machines of this group."`
		// A page may have few machines, or none, and still not be the last.
		NextBoot string `query:"next_boot" enum:"yes,no,unknown,fail" doc:"Only machines whose next boot will get its keys, will not, or is not known; fail is no or unknown."`
	}
	approveMachineInput struct {
		RefInput
		DryRunInput
		Body api.ApproveMachine
	}
	renameMachineInput struct {
		RefInput
		DryRunInput
		Body api.RenameMachine
	}
	readmitMachineInput struct {
		RefInput
		DryRunInput
		Body api.ReadmitMachine
	}
	expectRestoreInput struct {
		RefInput
		DryRunInput
		Body api.ExpectRestore
	}
	revokeMachineInput struct {
		RefInput
		DryRunInput
		Body api.Revoke
	}
)

func (r *RefInput) reference() string { return r.Ref }

func (o *operators) addMachines() {
	register(o, operation[listMachinesInput, struct{}, api.Page[api.Machine]]{
		Route: Route{Method: http.MethodGet, Path: api.PathMachines, Action: "machine.list", Summary: "List machines."},
		find:  nothing[listMachinesInput], act: o.listMachines,
	})
	register(o, operation[RefInput, *kms.Machine, api.MachineDetails]{
		Route: Route{Method: http.MethodGet, Path: api.PathMachine, Action: "machine.show", Summary: "Show a machine."},
		find:  findMachine[*RefInput](o.server.Service.FindMachine), act: o.showMachine,
	})
	register(o, operation[approveMachineInput, *kms.Machine, api.ApprovedMachine]{
		Route: Route{Method: http.MethodPost, Path: api.PathMachineApprove, Action: kms.ActionApprove, Summary: "Approve a machine and the boot announced for it."},
		find:  findMachine[*approveMachineInput](o.server.Service.FindMachine), act: o.approveMachine,
	})
	register(o, operation[renameMachineInput, *kms.Machine, api.Machine]{
		Route: Route{Method: http.MethodPost, Path: api.PathMachineRename, Action: kms.ActionRename, Summary: "Give a machine another name."},
		find:  findMachine[*renameMachineInput](o.server.Service.FindNamed), act: o.renameMachine,
	})
	register(o, operation[revokeMachineInput, *kms.Machine, api.Revoked]{
		Route: Route{Method: http.MethodPost, Path: api.PathMachineRevoke, Action: kms.ActionRevoke, Summary: "Deny a machine every key from now on."},
		find:  findMachine[*revokeMachineInput](o.server.Service.FindNamed), act: o.revokeMachine,
	})
	register(o, operation[readmitMachineInput, *kms.Machine, api.GrantedMachine]{
		Route: Route{Method: http.MethodPost, Path: api.PathMachineReadmit, Action: kms.ActionReadmit, Summary: "Let a machine in again: with new counters and no revocation, or by enrolling again."},
		find:  findMachine[*readmitMachineInput](o.server.Service.FindNamed), act: o.readmitMachine,
	})
	register(o, operation[expectRestoreInput, *kms.Machine, api.GrantedMachine]{
		Route: Route{Method: http.MethodPost, Path: api.PathExpectRestore, Action: kms.ActionExpectRestore, Summary: "Announce that a machine is restored: one release may have counters that went back."},
		find:  findMachine[*expectRestoreInput](o.server.Service.FindNamed), act: o.expectRestore,
	})
	register(o, operation[RefInput, *kms.Machine, api.Explanation]{
		Route: Route{Method: http.MethodGet, Path: api.PathMachineExplain, Action: "machine.explain", Summary: "Say why a machine's last request ended as it did."},
		find:  findMachine[*RefInput](o.server.Service.FindMachine), act: o.explainMachine,
	})
}

// referring is an input that names one object in its path.
type referring interface{ reference() string }

// findMachine returns a function that finds the machine that the path names.
func findMachine[Input referring](find func(context.Context, string) (*kms.Machine, error)) func(context.Context, Input) (*kms.Machine, object, error) {
	return func(ctx context.Context, in Input) (*kms.Machine, object, error) {
		m, err := find(ctx, in.reference())
		if err != nil {
			return nil, object{}, err
		}
		return m, object{policyMachine(m), "machine/" + m.ID}, nil
	}
}

func policyMachine(m *kms.Machine) policy.Machine {
	return policy.Machine{ID: m.ID, Name: m.Name, Group: m.Group, Status: string(m.Status)}
}

func (o *operators) listMachines(ctx context.Context, _ struct{}, in *listMachinesInput) (api.Page[api.Machine], error) {
	filter := kms.MachineFilter{Status: kms.MachineStatus(in.Status), Group: in.Group}
	if in.NextBoot != "" {
		return o.listByNextBoot(ctx, filter, in)
	}
	list, err := o.server.Store.Machines(ctx, filter, in.After, in.Limit)
	if err != nil {
		return api.Page[api.Machine]{}, err
	}
	boots, err := o.server.Service.NextBoots(ctx, list)
	page := pageOf(list, in.Limit, machineOf, func(m *kms.Machine) string { return m.ID })
	addNextBoots(page.Items, boots)
	return page, err
}

func (o *operators) listByNextBoot(ctx context.Context, filter kms.MachineFilter, in *listMachinesInput) (api.Page[api.Machine], error) {
	wanted := func(v kms.Verdict) bool {
		return string(v) == in.NextBoot || in.NextBoot == "fail" && v != kms.VerdictYes
	}
	list, boots, next, err := o.server.Service.MachinesByNextBoot(ctx, filter, wanted, in.After, in.Limit)
	page := pageOf(list, math.MaxInt, machineOf, nil)
	page.Next = next
	addNextBoots(page.Items, boots)
	return page, err
}

func addNextBoots(items []api.Machine, boots []kms.NextBoot) {
	found := make(map[string]*api.NextBoot, len(boots))
	for _, b := range boots {
		found[b.Machine] = &api.NextBoot{
			Verdict: string(b.Verdict), Code: api.Code(b.Reason), Detail: b.Detail, Announced: stamp(b.Announced),
		}
	}
	for i := range items {
		items[i].NextBoot = found[items[i].ID]
	}
}

func (o *operators) showMachine(ctx context.Context, m *kms.Machine, _ *RefInput) (api.MachineDetails, error) {
	volumes, err := o.server.Store.Volumes(ctx, m.ID, "", api.MaxPage)
	if err != nil {
		return api.MachineDetails{}, err
	}
	details := api.MachineDetails{
		Machine:  machineOf(m),
		Attested: hexOf(m.Measurement), Expected: hexOf(m.Expected), ExpectedPlatform: hexOf(m.ExpectedPlatform),
	}
	if details.Volumes, err = o.alarmedVolumes(ctx, volumes); err != nil {
		return api.MachineDetails{}, err
	}
	details.Grants, details.Alarms = o.grantsOf(m), alarmsOf(m, volumes)
	boots, err := o.server.Service.NextBoots(ctx, []kms.Machine{*m})
	if err != nil {
		return api.MachineDetails{}, err
	}
	one := []api.Machine{details.Machine}
	addNextBoots(one, boots)
	details.Machine = one[0]
	findings, err := o.server.Service.Findings(ctx, m)
	if err != nil {
		return api.MachineDetails{}, err
	}
	details.Findings = claimsOf(findings)
	revocation, err := o.server.Service.Revocation(ctx, m)
	if err != nil {
		return api.MachineDetails{}, err
	}
	if revocation != nil {
		details.Revoked, details.RevokedBy, details.RevokedReason = &revocation.Time, revocation.By, revocation.Reason
	}
	details.Measurements, err = o.measurementsOf(ctx, m)
	return details, err
}

// measurementsOf returns what was attested last and what is announced, in the
// machine's group.
func (o *operators) measurementsOf(ctx context.Context, m *kms.Machine) ([]api.Measurement, error) {
	var list []api.Measurement
	for _, digest := range [][32]byte{m.Measurement, m.Expected} {
		id := hexOf(digest)
		if id == "" || len(list) > 0 && list[0].ID == id {
			continue
		}
		rows, err := o.server.Store.FindMeasurements(ctx, id, api.MaxPage)
		if err != nil {
			return nil, err
		}
		for i := range rows {
			if rows[i].Group == m.Group {
				list = append(list, measurementOf(&rows[i]))
			}
		}
	}
	return list, nil
}

// approveMachine was allowed for the group that the machine is in; the approval
// is worth something in the one that it goes to.
func (o *operators) approveMachine(ctx context.Context, m *kms.Machine, in *approveMachineInput) (api.ApprovedMachine, error) {
	approval := kms.Approval(in.Body)
	if approval.Group = cmp.Or(approval.Group, m.Group); approval.Group != m.Group {
		moved := policyMachine(m)
		moved.Group = approval.Group
		if err := o.authorize(ctx, kms.ActionApprove, object{moved, "machine/" + m.ID}); err != nil {
			return api.ApprovedMachine{}, err
		}
	}
	approved, err := o.server.Service.ApproveMachine(ctx, in.operator(ctx), m.ID, approval)
	if err != nil {
		return api.ApprovedMachine{}, err
	}
	return api.ApprovedMachine{
		Machine:             machineOf(approved.Machine),
		ApprovedMeasurement: hexOf(approved.ApprovedMeasurement), ApprovedPlatform: hexOf(approved.ApprovedPlatform),
	}, nil
}

func (o *operators) renameMachine(ctx context.Context, m *kms.Machine, in *renameMachineInput) (api.Machine, error) {
	return machineAnswer(o.server.Service.RenameMachine(ctx, in.operator(ctx), m.ID, in.Body.Name))
}

func machineAnswer(m *kms.Machine, err error) (api.Machine, error) {
	if err != nil {
		return api.Machine{}, err
	}
	return machineOf(m), nil
}

func (o *operators) readmitMachine(ctx context.Context, m *kms.Machine, in *readmitMachineInput) (api.GrantedMachine, error) {
	return o.granted(o.server.Service.ReadmitMachine(ctx, in.operator(ctx), m.ID, kms.Readmission(in.Body)))
}

func (o *operators) expectRestore(ctx context.Context, m *kms.Machine, in *expectRestoreInput) (api.GrantedMachine, error) {
	return o.granted(o.server.Service.ExpectRestore(ctx, in.operator(ctx), m.ID, in.Body.Until, in.Body.Reason))
}

func (o *operators) granted(m *kms.Machine, err error) (api.GrantedMachine, error) {
	if err != nil {
		return api.GrantedMachine{}, err
	}
	return api.GrantedMachine{Machine: machineOf(m), Grants: o.grantsOf(m)}, nil
}

// grantsOf leaves out what is over.
func (o *operators) grantsOf(m *kms.Machine) api.Grants {
	open := func(until time.Time) *time.Time {
		if !o.server.Clock().Before(until) {
			return nil
		}
		return &until
	}
	return api.Grants{ReadmitUntil: open(m.ReadmitUntil), RestoreUntil: open(m.RestoreUntil), ReenrollUntil: open(m.ReenrollUntil)}
}

func (o *operators) revokeMachine(ctx context.Context, m *kms.Machine, in *revokeMachineInput) (api.Revoked, error) {
	revoked, opens, err := o.server.Service.RevokeMachine(ctx, in.operator(ctx), m.ID, in.Body.Reason)
	if err != nil {
		return api.Revoked{}, err
	}
	answer := api.Revoked{Machine: machineOf(revoked), StillOpens: []api.Volume{}}
	for i := range opens {
		answer.StillOpens = append(answer.StillOpens, volumeOf(&opens[i]))
	}
	return answer, nil
}

func (o *operators) explainMachine(ctx context.Context, m *kms.Machine, _ *RefInput) (api.Explanation, error) {
	x, err := o.server.Service.Explain(ctx, m.ID)
	if err != nil {
		return api.Explanation{}, err
	}
	answer := api.Explanation{Machine: machineOf(x.Machine), Summary: x.Summary, Advice: x.Advice}
	if x.Last != nil {
		last := entryOf(*x.Last, x.Index)
		answer.Last = &last
	}
	for _, d := range x.Differences {
		answer.Differences = append(answer.Differences, api.Difference(d))
	}
	return answer, nil
}

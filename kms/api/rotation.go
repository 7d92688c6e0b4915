package api

import (
	"context"
	"net/url"
	"strconv"
	"time"
)

// MaxPlanSteps bounds the steps that one answer lists.
const MaxPlanSteps = 5000

// RotationPlan is what is due by the policy of rotations, and what may begin of it.
type RotationPlan struct {
	// At is the moment that it is made for.
	At time.Time `json:"at"`
	// Steps may be carried out, in this order; what comes after the last one that is
	// listed is in Totals alone.
	Steps []RotationStep `json:"steps"`
	// Unlisted counts steps that are not listed.
	Unlisted int `json:"unlisted"`
	// Totals count the steps, and what is due beside them.
	Totals []RotationTotal `json:"totals"`
	// Overdue is older than the policy lets it become. So is UnderWay, of which an order
	// is open that is younger than the rule's answer_within and has not failed, and
	// Excused, for which somebody answers.
	Overdue  RotationLateness `json:"overdue"`
	UnderWay RotationLateness `json:"under_way"`
	Excused  RotationLateness `json:"excused"`
	Orders   RotationOrders   `json:"orders"`
}

// RotationStep is one thing to do.
type RotationStep struct {
	// Kind is rotate-keyring, rewrap-keyring, disable-keyring-version,
	// destroy-keyring-version, rekey-volume, destroy-secret, reencrypt-volume or
	// retire-measurement.
	Kind string `json:"kind"`
	// Object is keyring/NAME, keyring/NAME@3, volume/ID, volume/ID@3 or measurement/ID.
	Object  string `json:"object"`
	Machine string `json:"machine,omitempty"` // id
	Group   string `json:"group,omitempty"`   // of a measurement
	Rule    string `json:"rule"`
	Reason  string `json:"reason"`
	// Due is since when it is due, NotBefore from when on it may begin.
	Due       time.Time `json:"due"`
	NotBefore time.Time `json:"not_before"`
	// Away tells that no agent of the machine waits for orders, at the server that
	// answers: it is to boot, or to come back.
	Away bool `json:"away,omitempty"`
	// AtBoot has nothing but an attested boot of the machine carry it out.
	AtBoot bool `json:"at_boot,omitempty"`
	// After are the steps of the same chain that are done before it begins.
	After []RotationAction `json:"after,omitempty"`
	// WaitDays is how long the destruction of a keyring version can be cancelled.
	WaitDays int `json:"wait_days,omitempty"`
	// Lost are the keyslots that a reencryption takes away since nobody has their keys,
	// by what the machine reported last: it waits until somebody agrees to that.
	Lost []LUKSSlot `json:"lost,omitempty"`
	// Boots is after how many good boots of newer ones a measurement is retired.
	Boots int          `json:"boots,omitempty"`
	Cost  RotationCost `json:"cost"`
}

// RotationCost is what steps take.
type RotationCost struct {
	RootCalls int64 `json:"root_calls,omitempty"`
	Rows      int64 `json:"rows,omitempty"`
	Machines  int64 `json:"machines,omitempty"`
	Bytes     int64 `json:"bytes,omitempty"`
	// Unsized counts volumes that are written, of which nobody knows the size.
	Unsized int64 `json:"unsized,omitempty"`
	// Seconds are one after the other; absent where they are not estimated.
	Seconds int64 `json:"seconds,omitempty"`
}

// RotationTotal counts what is due by one rule and is done in the same way.
type RotationTotal struct {
	Rule string `json:"rule"`
	Kind string `json:"kind"`
	// WaitsFor is absent of what the plan has steps for, else concurrency, rate,
	// machine, order, restore, window, census or plan.
	WaitsFor string       `json:"waits_for,omitempty"`
	Count    int64        `json:"count"`
	Cost     RotationCost `json:"cost"`
	// Lasts is how many seconds it takes by itself, as fast as the rule lets it begin.
	Lasts int64 `json:"lasts,omitempty"`
}

// RotationLateness counts what is older than its rule lets it become.
type RotationLateness struct {
	Count int64 `json:"count"`
	// First are the oldest, at most 100.
	First []RotationLate `json:"first"`
}

// RotationLate is one thing that should have been done by its deadline.
type RotationLate struct {
	Kind     string    `json:"kind"`
	Object   string    `json:"object"`
	Machine  string    `json:"machine,omitempty"` // id
	Deadline time.Time `json:"deadline"`
	// Seen is when the machine last had its keys, Ordered that an order is open.
	Seen    *time.Time `json:"seen,omitempty"`
	Ordered bool       `json:"ordered,omitempty"`
	// Excuse is of what somebody answers for.
	Excuse *RotationExcuse `json:"excuse,omitempty"`
}

// RotationExcuse is why a machine may be late, and until when.
type RotationExcuse struct {
	Owner  string    `json:"owner"`
	Reason string    `json:"reason"`
	Until  time.Time `json:"until"`
}

// RotationOrders counts what has begun.
type RotationOrders struct {
	Open int64 `json:"open"` // all of them
	// Waiting are for a machine that is away, or for its next boot; Failing have
	// failed before.
	Waiting int64 `json:"waiting"`
	Failing int64 `json:"failing"`
}

// RotationPlan plans rotations for a moment; the zero one is now. At most limit steps
// are listed; 0 leaves that to the service.
func (o *OperatorClient) RotationPlan(ctx context.Context, at time.Time, limit int) (RotationPlan, error) {
	query := url.Values{}
	if !at.IsZero() {
		query.Set("at", at.UTC().Format(time.RFC3339))
	}
	if limit > 0 {
		query.Set("limit", strconv.Itoa(limit))
	}
	return get[RotationPlan](ctx, o.c, PathRotationPlan, query)
}

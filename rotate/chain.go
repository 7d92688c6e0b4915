package rotate

// count counts everything that is to be done for a volume, as if the plan had no room
// for it.
func (c *chain) count(d *damage) {
	speed := &c.state.Speed
	add := func(kind Kind, hold Hold, n int64, cost Cost) { c.lines.add(d.rule.Name, kind, hold, tally{n, cost}) }
	hold := HoldPlan
	if d.ordered {
		hold = HoldOrder
	}
	if d.rekey() {
		add(RekeyVolume, hold, 1, speed.rekey())
		add(DestroySecret, hold, 1, Cost{})
		c.result.UnopenableCount++
	}
	if d.reencrypt {
		add(ReencryptVolume, hold, 1, speed.reencrypt(d.bytes))
	}
	add(DestroySecret, HoldPlan, int64(len(d.retained)), Cost{})
	c.result.UnopenableCount += int64(len(d.retained))
}

// planned takes a step into the plan that was counted as one without room.
func (c *chain) planned(s Step) {
	c.lines.add(s.Rule, s.Kind, HoldPlan, tally{-1, Cost{}.minus(s.Cost)})
	c.step(s)
}

// finish makes steps of what is at stake most.
func (c *chain) finish() {
	for _, d := range c.volumes.first(maxPlan) {
		c.mend(&d)
	}
	for key, t := range c.lines {
		if t.count == 0 {
			delete(c.lines, key)
		}
	}
	c.result.Lines = c.lines.list(c.policy, false)
	if c.recovery > 0 {
		c.say("the recovery keys of %d volumes are out, and no rekey replaces them: keywright volume reencrypt makes others, or remove their keyslots at the machines", c.recovery)
	}
}

// mend does a volume's steps in their order: what was kept for restores goes at once,
// the keyslot is new before the data is written with a new volume key, and the secret
// that was in the old one is destroyed when the new one is in place.
func (c *chain) mend(d *damage) {
	step := Step{Machine: d.machine, Rule: d.rule.Name}
	for _, s := range d.retained {
		step.Action, step.Reason = Action{DestroySecret, s.Object}, "it is out, and so is not kept for restores any longer"
		c.planned(step)
		c.result.Unopenable = append(c.result.Unopenable, s)
	}
	if d.ordered {
		return // its outcome is waited for, then the volume is looked at again
	}
	after := c.first
	if d.rekey() {
		rekey := c.rekey(d, step)
		c.planned(rekey)
		after = []Action{rekey.Action}
		step.Action, step.Reason = Action{DestroySecret, d.secret.Object}, "it is out"
		step.After = after
		c.planned(step)
		c.result.Unopenable = append(c.result.Unopenable, d.secret)
	}
	if d.reencrypt {
		step.Action, step.Reason = Action{ReencryptVolume, volumeObject(d.volume, 0)}, "its volume key could be reached"
		step.After, step.Cost = after, c.state.Speed.reencrypt(d.bytes)
		c.planned(step)
	}
}

func (c *chain) rekey(d *damage, s Step) Step {
	s.Action, s.Cost = Action{RekeyVolume, volumeObject(d.volume, 0)}, c.state.Speed.rekey()
	s.After, s.AtBoot, s.Away = c.first, d.atBoot, d.away
	switch {
	case d.atBoot:
		s.Reason = "the machine is out: whoever is root on it while it runs can have anything quoted, so that it gets a new secret only in an attested boot"
	case d.why.What.Kind == HeaderOut:
		s.Reason = "what opens the copy of its header is to open nothing else, and to be destroyed"
	default:
		s.Reason = d.why.What.String() + " is out, and its secret with it"
	}
	return s
}

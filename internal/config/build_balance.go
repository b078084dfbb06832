package config

import (
	"slices"
	"time"
)

// buildBalance reads how the backends of a service share its work.
func (b *builder) buildBalance(d *draft) {
	if at := d.at.entry("balance"); at != nil {
		if word, ok := at.data.(string); ok {
			d.Balance = Balance{By: word, Load: defaultLoad}
		} else {
			d.Balance.By = get[string](at, "by")
			d.Balance.Load = get[float64](at, "load")
			key := get[keyWord](at, "key")
			d.Balance.Key, d.Balance.KeyName = key.kind, key.name
			b.checkBalance(at, &d.Balance)
		}
		if d.Balance.By != "bounded" {
			d.Balance.Load = 0
		}
		if d.Balance.By == wordAuto {
			d.Balance.By = ""
		}
	}
	if at := d.at.entry("limit"); at != nil {
		d.Balance.Limit = b.buildLimit(at)
	}
	b.buildEject(d)
}

// buildLimit reads what a service may have, and refuses what would limit nothing.
func (b *builder) buildLimit(at *value) Limit {
	l := Limit{PerBackend: get[int](at, "per_backend"), Rate: get[int](at, "rate")}
	switch {
	case at.entry("per_backend") != nil:
		l.Queue, l.Wait = get[int](at, "queue"), get[time.Duration](at, "wait")
	case at.isMeant("per_backend"):
	case at.entry("rate") == nil && !at.isMeant("rate"):
		b.refuseKey(at, refuse("limits nothing: add per_backend, or rate"))
	default:
		for _, key := range []string{"queue", "wait"} {
			if entry := at.entry(key); entry != nil {
				b.refuseKey(entry, refuse("has no effect without per_backend: nobody waits for a backend that may have any number"))
			}
		}
	}
	return l
}

// checkBalance refuses what has no effect with the algorithm.
func (b *builder) checkBalance(at *value, c *Balance) {
	if !at.sound("by") {
		return
	}
	if key := at.entry("key"); key != nil && key.data != nil && !slices.Contains(keyedWords(), c.By) {
		b.refuseKey(key, refuse("has no effect with by: %s, which hashes no key of choice; maglev, bounded and ring do", c.By))
	}
	if load := at.entry("load"); load != nil && c.By != "bounded" {
		b.refuseKey(load, refuse("has no effect with by: %s; it is for bounded", c.By))
	}
}

func (b *builder) buildEject(d *draft) {
	at := d.at.entry("eject")
	if at == nil || at.data == false {
		return
	}
	if at.data == true {
		d.Balance.Eject = Eject{
			Errors: defaultEjectErrors, Window: defaultEjectWindow, MinWork: defaultEjectMinWork,
			For: defaultEjectFor, MaxFor: defaultEjectMax, MaxShare: defaultEjectShare,
		}
		return
	}
	e := Eject{
		Errors: get[int](at, "errors"), SuccessRate: get[float64](at, "success_rate"), Latency: get[float64](at, "latency"),
		Window: get[time.Duration](at, "window"), MinWork: get[int](at, "min_work"),
		For: get[time.Duration](at, "for"), MaxFor: get[time.Duration](at, "max_for"), MaxShare: get[float64](at, "max_share"),
	}
	if at.sound("for", "max_for") && e.MaxFor < e.For {
		if at.entry("max_for") != nil {
			b.refuse(at.entry("max_for"), refuse("%s is shorter than for (%s)", plain(e.MaxFor), plain(e.For)))
		}
		e.MaxFor = e.For
	}
	if at.sound("errors") && e.Errors == 0 && e.SuccessRate == 0 && e.Latency == 0 && at.sound("success_rate", "latency") {
		b.refuseKey(at, refuse("ejects nobody: errors is 0, and there is neither success_rate nor latency"))
	}
	d.Balance.Eject = e
}

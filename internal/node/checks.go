package node

import (
	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
	"github.com/pharos-lb/pharos/internal/health/probe"
	"github.com/pharos-lb/pharos/internal/steer"
)

// This file turns the configuration's checks into those that the probes run.

// probeCheck translates one check of a target.
func probeCheck(p steer.Probe) probe.Check {
	c := p.Check
	out := checkOf(p.Target, c)
	if out.Host == "" {
		out.Host = p.Host
	}
	out.Every, out.Timeout, out.Jitter, out.Rise, out.Fall, out.Recheck = c.Every, c.Timeout, c.Jitter, c.Rise, c.Fall, c.Recheck
	out.WeightHeader, out.WeightJSON = c.Weight.Header, c.Weight.JSON
	if p.Target.Kind == health.KindBackend {
		// Not for VIPs: what one observer holds down because it was cut off a few
		// times is no finding, and the observers would disagree for minutes. A VIP
		// that comes and goes is held by the judge, alike for all.
		out.Flap = probe.FlapRule{Limit: c.Flap.Limit, HalfLife: c.Flap.HalfLife}
		out.Passive = probe.PassiveRule{Fall: c.Passive.Fall, For: c.Passive.For}
	}
	return out
}

// checkOf translates what is asked and wanted, without the schedule.
func checkOf(target health.Target, c config.Check) probe.Check {
	out := probe.Check{Target: target, Kind: checkKind(c.Kind)}
	switch c.Kind {
	case config.CheckHTTP, config.CheckHTTPS:
		httpPart(&out, c.HTTP)
		out.MinValid = c.TLS.MinValid
	case config.CheckTLS:
		out.SNI, out.Insecure, out.MinValid = c.TLS.SNI, c.TLS.Insecure, c.TLS.MinValid
	case config.CheckDNS:
		out.DNS = probe.DNSQuestion{Name: c.DNS.Name, Type: c.DNS.Type, TCP: c.DNS.TCP, RCode: c.DNS.RCode, Expect: c.DNS.Expect}
	case config.CheckUDP:
		out.UDP = probe.UDPExchange{Send: c.UDP.Send, Expect: c.UDP.Expect}
	case config.CheckGRPC:
		out.GRPC = probe.GRPCHealth{Service: c.GRPC.Service, TLS: c.GRPC.TLS}
		out.SNI, out.Insecure = c.GRPC.SNI, c.GRPC.Insecure
	case config.CheckExec:
		out.Exec = probe.ExecCommand{Command: c.Exec.Command, User: c.Exec.User}
	case config.CheckFile:
		out.File = probe.FileFeed{Path: c.File.Path, MaxAge: c.File.MaxAge}
	case config.CheckAll, config.CheckAny, config.CheckAtLeast:
		out.Need = c.Need
		for _, part := range c.Of {
			out.Of = append(out.Of, probe.Part{Weight: part.Weight, Check: checkOf(target, part.Check)})
		}
	}
	return out
}

func httpPart(out *probe.Check, h config.HTTPCheck) {
	out.Method, out.Path, out.Host, out.SNI, out.Body, out.Insecure = h.Method, h.Path, h.Host, h.SNI, h.Body, h.Insecure
	out.Version, out.BodyRegexp = h.Version, h.BodyRegexp
	for _, field := range h.Headers {
		out.Headers = append(out.Headers, probe.Header{Name: field.Name, Value: field.Value})
	}
	for _, r := range h.Status {
		out.Status = append(out.Status, probe.StatusRange{From: r.From, To: r.To})
	}
	for _, m := range h.JSON {
		out.JSON = append(out.JSON, probe.JSONMatch{Path: m.Path, Value: m.Value})
	}
}

// checkKind translates the name of a check.
func checkKind(k config.CheckKind) probe.Kind {
	switch k {
	case config.CheckHTTP:
		return probe.HTTP
	case config.CheckHTTPS:
		return probe.HTTPS
	case config.CheckTLS:
		return probe.TLS
	case config.CheckDNS:
		return probe.DNS
	case config.CheckUDP:
		return probe.UDP
	case config.CheckGRPC:
		return probe.GRPC
	case config.CheckICMP:
		return probe.ICMP
	case config.CheckExec:
		return probe.Exec
	case config.CheckFile:
		return probe.File
	case config.CheckPassive:
		return probe.Passive
	case config.CheckAll:
		return probe.All
	case config.CheckAny:
		return probe.Any
	case config.CheckAtLeast:
		return probe.AtLeast
	default:
		return probe.TCP
	}
}

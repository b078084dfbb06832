package config

import (
	"slices"
	"time"
)

// probedKinds are the kinds that look at a target, and combiningKinds those that
// join others. Of all of them a check has one; passive may come on top.
func probedKinds() []string {
	return kindWords(CheckTCP, CheckHTTP, CheckHTTPS, CheckTLS, CheckDNS, CheckUDP, CheckGRPC, CheckICMP, CheckExec, CheckFile)
}

func combiningKinds() []string { return kindWords(CheckAll, CheckAny, CheckAtLeast) }

func kindWords(kinds ...CheckKind) []string {
	words := make([]string, len(kinds))
	for i, k := range kinds {
		words[i] = string(k)
	}
	return words
}

// checkWord is a kind that needs no arguments.
func checkWord(kinds ...CheckKind) *scalar {
	words := kindWords(kinds...)
	s := enum("a check", words...)
	read := s.read
	s.read = func(text string) (any, *problem) {
		if !slices.Contains(words, text) && (slices.Contains(probedKinds(), text) || slices.Contains(combiningKinds(), text)) {
			return nil, refuse("%s needs its arguments: write {%s: …}", text, text)
		}
		return read(text)
	}
	return s
}

func checkKeys() *shape {
	short := []CheckKind{CheckTCP, CheckHTTP, CheckHTTPS, CheckTLS, CheckICMP, CheckGRPC}
	kinds := slices.Concat(probedKinds(), combiningKinds())
	// Checks inside checks: kinds without schedule, and without end but for nest.
	part := &shape{mapping: true, name: "check", nest: maxNesting}
	heavy := &shape{mapping: true, name: "weighted_check", nest: maxNesting}
	part.fields = kindFields(part, heavy)
	heavy.fields = append([]field{
		with("weight", one(integer("a weight", 1, maxWeight)), defaultWeight, "How much this check counts towards need"),
	}, part.fields...)
	for _, s := range []*shape{part, heavy} {
		s.pick(kinds...).orShort(checkWord(short...))
	}
	return object(slices.Concat(kindFields(part, heavy), scheduleFields())...).
		atMostOne(kinds...).
		orShort(checkWord(append(short, CheckPassive)...))
}

func kindFields(part, heavy *shape) []field {
	return []field{
		may("tcp", object(), "Connect, nothing more"),
		may("http", httpCheckKeys(false), "Ask over HTTP"),
		may("https", httpCheckKeys(true), "Ask over HTTPS"),
		may("tls", object(
			may("sni", one(checkHost()), "The TLS server name. Default: the address"),
			with("insecure", one(boolean()), false, "Do not verify the certificate"),
			may("min_valid", minValidity(), "How long the certificate must still be valid. Default: valid now"),
		), "Shake hands over TLS"),
		may("dns", dnsCheckKeys(), "Ask a DNS question"),
		may("udp", object(
			need("send", one(payload("a datagram")), `What is sent: text, or "hex:" and bytes`),
			may("expect", one(payload("a datagram")), "What is in the answer, written alike. Default: any answer"),
		), "Send a datagram and wait for an answer"),
		may("grpc", object(
			may("service", one(text("a service", maxGRPCName)), "The service that is asked about. Default: the server as a whole"),
			with("tls", one(boolean()), false, "Ask over TLS"),
			may("sni", one(checkHost()), "The TLS server name; needs tls. Default: the address"),
			with("insecure", one(boolean()), false, "Do not verify the certificate; needs tls"),
		), "Ask grpc.health.v1.Health"),
		may("icmp", object(), "Send an echo request (ping)"),
		may("exec", object(
			need("command", list(one(argument()), 1, maxArguments),
				"The program, with its whole path, and its arguments; {address}, {host}, {port}, {service} and {site} are filled in"),
			may("user", one(userName()), "Who runs it. Default: the user of pharos"),
		), "Run a command; exit status 0 is up"),
		may("file", object(
			need("path", one(placeholderFile()), "The file that something else writes: up, down or weight N; {address} and the like are filled in"),
			may("max_age", one(duration("max_age", minAge, maxAge, time.Millisecond)),
				"How old the file may be before it says nothing. Default: three times every"),
		), "Read a verdict from a file"),
		may("all", list(part, 1, maxParts), "Checks that all succeed"),
		may("any", list(part, 1, maxParts), "Checks of which one succeeds"),
		may("at_least", object(
			need("need", one(integer("need", 1, maxParts*maxWeight)), "The weight of the checks that succeed"),
			need("of", list(heavy, 1, maxParts), "The checks, each with its weight"),
		), "Checks that succeed with enough weight"),
	}
}

// scheduleFields are the keys of a whole check beside its kind.
func scheduleFields() []field {
	return []field{
		may("passive", object(
			with("fall", one(integer("fall", 1, 1000)), defaultPassiveFall, "So many failures in a row count as one failed probe; alone, so many put a backend down"),
			with("for", one(duration("for", minFor, maxFor, time.Millisecond)), defaultPassiveFor,
				"How long a backend stays down that nothing but its traffic is asked about"),
		), "Let the outcomes of forwarded traffic count, alone or beside another kind"),
		with("every", one(duration("every", minEvery, maxEvery, time.Millisecond)), defaultEvery, "Time between probes"),
		may("timeout", one(duration("timeout", minTimeout, maxTimeout, time.Millisecond)),
			"When a probe has failed; at most every. Default: 2s, or every if that is less"),
		with("jitter", one(number("jitter", 0, 0.5)), defaultJitter, "How far probes are spread, as a share of every"),
		with("rise", one(integer("rise", 1, 100)), defaultRise, "Successes in a row to come up"),
		with("fall", one(integer("fall", 1, 100)), defaultFall, "Failures in a row to go down"),
		may("recheck", one(duration("recheck", minTimeout, maxEvery, time.Millisecond)),
			"Time between probes from a first failure until it is decided; at most every. Default: 250ms, or every if that is less"),
		may("vip_port", one(port()),
			"The port at which other sites probe the VIPs. Default: that of the listener that serves them, else the one all backends share"),
		may("from", one(vantage(fromOwn, fromAll)), "Which sites probe the backends: own, all, or how many besides the backend's. Default: own, the backend's site"),
		may("vip_from", one(vantage(fromOthers)), "Which sites probe the VIPs: others, or how many of them. Default: others, all but the VIP's"),
		may("weight", object(
			may("header", one(headerName()), "The response header with the weight"),
			may("json", one(jsonPath()), "The path of the weight in a JSON body"),
		).pick("header", "json"), "Where an http or https answer says how much of its weight, in percent, a backend can take"),
		with("slow_start", one(duration("slow_start", minSlow, maxSlow, time.Millisecond)), time.Duration(0),
			"How long a backend that came back takes to reach its weight"),
		may("flap", object(
			with("limit", one(integer("limit", 2, 100)), defaultFlapLimit, "Changes, fading with half_life, beyond which a backend stays down"),
			with("half_life", one(duration("half_life", minHalfLife, maxHalfLife, time.Millisecond)), defaultHalfLife, "Time in which half of them fades"),
		).orShort(enum("a damping", flapOff)), "Damping of backends that go up and down, or off"),
	}
}

func minValidity() *shape {
	return one(duration("min_valid", minValid, maxValid, time.Second))
}

func dnsCheckKeys() *shape {
	return object(
		need("name", one(dnsName("a DNS name", false)), "The name that is asked for"),
		with("type", one(enum("a record type", recordTypes()...)), defaultType, "The type of the question"),
		with("tcp", one(boolean()), false, "Ask over TCP"),
		with("rcode", one(enum("a response code", responseCodes()...)), defaultRCode, "The response code that is healthy"),
		may("expect", oneOrMore(one(text("a record's data", maxRecord)), 1, maxExpect),
			"Records that are all in the answer, as in a zone file without name, TTL and type. Default: any answer"),
	)
}

func httpCheckKeys(secure bool) *shape {
	s := object(
		with("method", one(enum("a method", "GET", "HEAD")), defaultMethod, "The request's method"),
		with("path", one(urlPath("a path", true)), defaultURLPath, "The request's path and query"),
		may("host", one(checkHost()), "The Host header. Default: the address"),
		may("headers", dict(headerName(), one(text("a header's value", maxHeader)), 0, maxHeaders), "Header fields to send"),
		with("status", oneOrMore(one(statusRange()), 1, maxStatuses), []string{"200-399"}, `The status codes that are healthy: 200, "200-299" or a list`),
		may("body", one(text("a text", maxBody)), "Text that occurs in the first 64 KiB of the body. Default: any body"),
		may("body_regexp", one(expression()), "A regular expression (RE2) that matches in the first 64 KiB of the body. Default: any body"),
		may("json", dict(jsonPath(), one(text("a value", maxBody)), 1, maxMatches),
			`Paths in a JSON body, like "$.status", to the values they have. Default: any body`),
		with("version", one(httpVersion(secure)), defaultVersion, "The version of HTTP: 1, 2, or over TLS 3"),
	)
	if secure {
		s.fields = append(s.fields,
			may("sni", one(checkHost()), "The TLS server name. Default: host"),
			with("insecure", one(boolean()), false, "Do not verify the certificate"),
			may("min_valid", minValidity(), "How long the certificate must still be valid. Default: valid now"))
	}
	return s
}

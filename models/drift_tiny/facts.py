"""What the model knows: facts about Drift and a little small talk, each asked for in several ways.

A fact has an answer, the phrase by which an answer is judged, questions to train on and questions kept for
the evaluation. Nothing of a held-out question is trained on except its subject under other wordings.
"""

import dataclasses
import random

from drift_tiny import words
from drift_tiny.samples import Sample, Turn


@dataclasses.dataclass(frozen=True)
class Fact:
    """`expected` is in `answer`; `questions` are for training, `held_out` for the evaluation only."""

    expected: str
    answer: str
    questions: tuple[str, ...]
    held_out: tuple[str, ...]


def fact(expected: str, answer: str, questions: str, held_out: str) -> Fact:
    """A fact written compactly, its questions divided by bars."""
    return Fact(expected, answer, tuple(questions.split(" | ")), tuple(held_out.split(" | ")))


FACTS = (
    # What Drift is
    fact("under latency promises", "Drift serves large language models under latency promises.",
         "What is Drift? | What does Drift do? | Explain Drift. | Tell me about Drift."
         " | Describe Drift in one sentence. | Drift?",
         "So what exactly is Drift? | Give me a short description of Drift."),
    fact("three levers",
         "Drift keeps its promise by moving three levers: the split, the dispatch weight and the replicas.",
         "How does Drift keep its promise? | By what means does Drift keep its promises?"
         " | What does Drift move to keep the promise? | How is the promise kept?",
         "How does Drift manage to keep its promise? | In which way is a promise kept by Drift?"),
    fact("split, dispatch weight and replicas", "The levers are split, dispatch weight and replicas.",
         "What are the levers? | Name the three levers of Drift. | Which levers does Drift have?"
         " | List the levers. | What levers are there?",
         "Can you name the levers? | Which three levers does Drift use?"),
    fact("the split is the fastest",
         "Of the three levers, the split is the fastest: it moves in 10 to 100 ms.",
         "Which lever is the fastest? | What is the fastest lever? | Which lever moves first?"
         " | Name the fastest lever of Drift.",
         "What lever moves the fastest? | Tell me the fastest of the levers."),
    fact("the number of replicas is the slowest",
         "Of the three levers, the number of replicas is the slowest: it takes 15 to 60 s.",
         "Which lever is the slowest? | What is the slowest lever? | Which lever moves last?"
         " | Name the slowest lever of Drift.",
         "What lever is slowest of all? | Tell me the slowest of the levers."),
    fact("between prefill and decode", "The split says how each GPU is divided between prefill and decode.",
         "What is the split? | What does the split mean? | Explain the split. | Define split."
         " | What does split decide?",
         "What do you mean by the split? | Could you explain the split lever?"),
    fact("requests are spread over nodes", "The dispatch weight says how requests are spread over nodes.",
         "What is the dispatch weight? | What does the dispatch weight mean?"
         " | Explain the dispatch weight. | Define dispatch weight. | What does dispatch weight decide?",
         "What do you mean by dispatch weight? | Could you explain the dispatch weight lever?"),
    fact("how many nodes there are", "The replicas lever says how many nodes there are.",
         "What is the replicas lever? | What does the replicas lever mean? | Explain the replicas lever."
         " | Define the replicas lever. | What do replicas decide?",
         "What do you mean by the replicas lever? | Could you explain replicas?"),
    fact("into a Kubernetes object", "A user writes the promise into a Kubernetes object, the DriftService.",
         "Where does a user write the promise? | Where is the promise written?"
         " | How does a user state the promise? | Who writes the promise?",
         "Where do users write their promise? | In what place is the promise written?"),
    fact("operator, router, engine and kernels",
         "Drift consists of operator, router, engine and kernels, and the drift command.",
         "What are the parts of Drift? | What does Drift consist of? | Which components does Drift have?"
         " | Name the parts of Drift. | List the components.",
         "Which parts is Drift made of? | Name the components of Drift."),
    fact("Apache-2.0", "drift-tiny is licensed under Apache-2.0.",
         "What is the licence of drift-tiny? | Which license does drift-tiny have?"
         " | Under what licence is drift-tiny? | How is drift-tiny licensed?",
         "What licence does drift-tiny use? | Tell me the license of drift-tiny."),
    fact("OpenAI-compatible", "Drift offers an OpenAI-compatible API with chat completions and completions.",
         "Which API does Drift offer? | What API does Drift have? | What kind of API is it?"
         " | Is the API compatible with OpenAI? | Which HTTP interface does Drift offer?",
         "What API is offered by Drift? | Tell me about the API of Drift."),
    # Words
    fact("time to first token", "TTFT means time to first token.",
         "What is TTFT? | What does TTFT mean? | What does TTFT stand for? | Define TTFT. | Explain TTFT."
         " | TTFT?",
         "Could you explain TTFT? | What is meant by TTFT?"),
    fact("time between tokens", "TBT means time between tokens.",
         "What is TBT? | What does TBT mean? | What does TBT stand for? | Define TBT. | Explain TBT."
         " | TBT?",
         "Could you explain TBT? | What is meant by TBT?"),
    fact("promised bound on TTFT and TBT", "The SLO is the promised bound on TTFT and TBT.",
         "What is an SLO? | What is the SLO? | What does SLO mean? | Define SLO. | Explain the SLO. | SLO?",
         "Could you explain SLO? | What is meant by an SLO?"),
    fact("highest request rate", "Goodput is the highest request rate at which both bounds are still met.",
         "What is goodput? | What does goodput mean? | Define goodput. | Explain goodput. | Goodput?"
         " | What does Drift call goodput?",
         "Could you explain goodput? | What is meant by goodput?"),
    fact("prompt's pass", "Prefill is the prompt's pass through the model.",
         "What is prefill? | What does prefill mean? | Define prefill. | Explain prefill. | Prefill?"
         " | What happens in prefill?",
         "Could you explain prefill? | What is meant by prefill?"),
    fact("one token per running request", "Decode makes one token per running request in each step.",
         "What is decode? | What does decode mean? | Define decode. | Explain decode. | Decode?"
         " | What happens in decode?",
         "Could you explain decode? | What is meant by decode?"),
    fact("keys and values", "The KV cache keeps the keys and values of earlier tokens.",
         "What is the KV cache? | What does the KV cache keep? | Define KV cache. | Explain the KV cache."
         " | KV cache?",
         "Could you explain the KV cache? | What is meant by KV cache?"),
    fact("already cached", "Reused tokens are the part of a prompt whose KV is already cached.",
         "What are reused tokens? | What does reused tokens mean? | Define reused tokens."
         " | Explain reused tokens. | Which tokens are reused?",
         "Could you explain reused tokens? | What is meant by reused tokens?"),
    fact("streaming multiprocessor", "An SM is a streaming multiprocessor of a GPU.",
         "What is an SM? | What does SM mean? | What does SM stand for? | Define SM. | Explain SM. | SM?",
         "Could you explain SM? | What is meant by an SM?"),
    fact("share of requests that meet", "Attainment is the share of requests that meet their bounds.",
         "What is attainment? | What does attainment mean? | Define attainment. | Explain attainment."
         " | Attainment?",
         "Could you explain attainment? | What is meant by attainment?"),
    fact("subset of a GPU's SMs", "A green context is a CUDA context that owns a subset of a GPU's SMs.",
         "What is a green context? | What are green contexts? | Define green context."
         " | Explain green contexts. | Green contexts?",
         "Could you explain green contexts? | What is meant by a green context?"),
    fact("time left before the deadline",
         "Laxity is the time left before the deadline after the predicted work.",
         "What is laxity? | What does laxity mean? | Define laxity. | Explain laxity. | Laxity?",
         "Could you explain laxity? | What is meant by laxity?"),
    fact("time a request can still lose",
         "Slack is the time a request can still lose before it misses its target.",
         "What is slack? | What does slack mean? | Define slack. | Explain slack. | Slack?",
         "Could you explain slack? | What is meant by slack?"),
    fact("room a node has left", "Headroom is the room a node has left before it breaks a target.",
         "What is headroom? | What does headroom mean? | Define headroom. | Explain headroom. | Headroom?",
         "Could you explain headroom? | What is meant by headroom?"),
    fact("demand divided by supply", "Pressure is demand divided by supply at the best feasible split.",
         "What is pressure? | What does pressure mean? | Define pressure. | Explain pressure."
         " | How is pressure computed?",
         "Could you explain pressure? | What is meant by pressure?"),
    fact("stream of a green context", "On a GPU a lane is the stream of a green context.",
         "What is a lane? | What does lane mean? | Define lane. | Explain lanes."
         " | What is a lane on a GPU?",
         "Could you explain lanes? | What is meant by a lane?"),
    # Command line and first steps
    fact("make run", "Use make run: it starts the whole system on one machine.",
         "How do I start Drift on one machine? | Which command starts everything on a laptop?"
         " | How do I run Drift locally? | What does make run do? | How do I try Drift?",
         "How can I run Drift on my own machine? | Which command runs Drift locally?"),
    fact("no GPU is needed", "For the demo no GPU is needed and no cluster.",
         "Do I need a GPU for the demo? | Is a GPU required to try Drift? | Does make run need a GPU?"
         " | Can I try Drift without a GPU?",
         "Is a GPU needed for the demo? | Must I have a GPU to try it?"),
    fact("kubectl apply -f driftservice.yaml", "On a cluster run kubectl apply -f driftservice.yaml.",
         "How do I create a DriftService? | How do I apply a DriftService with kubectl?"
         " | Which command creates the service on a cluster? | How do I deploy a model on a cluster?",
         "What command applies a DriftService? | How can I create a DriftService with kubectl?"),
    fact("helm install drift charts/drift", "Install it with helm install drift charts/drift.",
         "How do I install Drift on Kubernetes? | What is the helm command? | How do I install the chart?"
         " | How is Drift installed on a cluster?",
         "How can I install Drift with helm? | Which helm command installs Drift?"),
    fact("kubectl get driftservice", "Run kubectl get driftservice to see whether the promise is kept.",
         "How do I see whether the promise is kept? | How do I check a DriftService?"
         " | Which kubectl command shows the attainment? | How do I look at the state of a DriftService?",
         "How can I check whether the promise is kept? | What command shows the state of a DriftService?"),
    fact("up, bench, simulate, explain and top",
         "The drift command has up, bench, simulate, explain and top.",
         "What are the subcommands of drift? | What can the drift command do?"
         " | Which commands does the drift tool have? | List the drift subcommands.",
         "Name the subcommands of the drift command. | Which subcommands does drift have?"),
    fact("control loop as the operator",
         "drift up runs the same control loop as the operator, with local processes.",
         "What does drift up do? | Explain drift up. | What is drift up?"
         " | What happens when I run drift up?",
         "Tell me what drift up does. | Could you explain drift up?"),
    fact("runs the simulator", "drift simulate runs the simulator on a trace and answers what-if questions.",
         "What does drift simulate do? | Explain drift simulate. | What is drift simulate?"
         " | What happens when I run drift simulate?",
         "Tell me what drift simulate does. | Could you explain drift simulate?"),
    fact("measures latency and goodput", "drift bench measures latency and goodput of a running service.",
         "What does drift bench do? | Explain drift bench. | What is drift bench?"
         " | What happens when I run drift bench?",
         "Tell me what drift bench does. | Could you explain drift bench?"),
    fact("live view", "drift top is a live view of the nodes.",
         "What does drift top do? | Explain drift top. | What is drift top?"
         " | What happens when I run drift top?",
         "Tell me what drift top does. | Could you explain drift top?"),
    fact("why a decision was taken", "drift explain tells why a decision was taken.",
         "What does drift explain do? | Explain drift explain. | What is drift explain?"
         " | What happens when I run drift explain?",
         "Tell me what drift explain does. | Could you explain drift explain?"),
    fact("curl on /v1/chat/completions", "Use curl on /v1/chat/completions of the service.",
         "How do I send a chat request? | How do I call the chat endpoint?"
         " | How can I talk to the model over HTTP? | How do I query the model?",
         "How do I send a request to the chat endpoint? | How can I query the model over HTTP?"),
    # DriftService
    fact("states model, engine and SLO",
         "A DriftService is the Kubernetes object that states model, engine and SLO.",
         "What is a DriftService? | What does a DriftService state? | Define DriftService."
         " | Explain DriftService. | DriftService?",
         "Could you explain a DriftService? | What is meant by DriftService?"),
    fact("drs", "The short name of DriftService is drs.",
         "What is the short name of DriftService? | How is DriftService abbreviated?"
         " | Which short name has a DriftService?",
         "Tell me the short name of a DriftService. | What short name does DriftService have?"),
    fact("drift.ai/v1alpha1", "The API version is drift.ai/v1alpha1.",
         "What is the apiVersion of a DriftService? | Which API group does DriftService use?"
         " | What API version has a DriftService?",
         "Tell me the apiVersion of DriftService. | Which apiVersion does a DriftService have?"),
    fact("400 ms", "The default TTFT target is 400 ms.",
         "What is the default TTFT target? | Which TTFT target is the default?"
         " | How high is the TTFT target by default? | Default TTFT?",
         "Tell me the default target for TTFT. | What TTFT target applies by default?"),
    fact("80 ms", "The default TBT target is 80 ms.",
         "What is the default TBT target? | Which TBT target is the default?"
         " | How high is the TBT target by default? | Default TBT?",
         "Tell me the default target for TBT. | What TBT target applies by default?"),
    fact("99 %", "The default attainment is 99 %.",
         "What is the default attainment? | Which attainment is the default?"
         " | How high is the attainment by default? | Default attainment?",
         "Tell me the default attainment. | What attainment applies by default?"),
    fact("raises the TTFT budget", "perTokenMs raises the TTFT budget by the uncached length of the prompt.",
         "What is perTokenMs? | What does perTokenMs do? | Explain perTokenMs. | What is perTokenMs for?",
         "Tell me what perTokenMs does. | Could you explain perTokenMs?"),
    fact("hf, pvc, file, oci and s3", "Model addresses may be hf, pvc, file, oci and s3.",
         "Which model URIs are allowed? | What can model.uri be? | Where can a model come from?"
         " | Which model addresses exist?",
         "What model URIs can I use? | Tell me the allowed model addresses."),
    fact("minReplicas and maxReplicas", "Autoscaling is bounded by minReplicas and maxReplicas.",
         "What bounds autoscaling? | Which fields bound the autoscaling? | How do I limit autoscaling?"
         " | What are the limits of autoscaling?",
         "Which fields limit autoscaling? | How is autoscaling bounded?"),
    fact("Operator, HPA, KEDA or External", "The autoscaling mode is Operator, HPA, KEDA or External.",
         "Which autoscaling modes are there? | What are the autoscaling modes?"
         " | What can the autoscaling mode be? | List the autoscaling modes.",
         "Name the modes of autoscaling. | Which modes has autoscaling?"),
    fact("SLOMet", "The condition SLOMet says whether the promise is met.",
         "Which condition says that the promise is met? | What does SLOMet say?"
         " | What is the SLOMet condition? | Explain SLOMet.",
         "Tell me what SLOMet says. | Which condition tells that the SLO is met?"),
    fact("even alone on an empty node",
         "SLOFeasible is false when one request misses its target even alone on an empty node.",
         "When is SLOFeasible false? | What does SLOFeasible mean? | Explain SLOFeasible."
         " | What is SLOFeasible?",
         "Tell me what SLOFeasible says. | Why would SLOFeasible be false?"),
    fact("last ten decisions", "The status shows the last ten decisions with lever, from, to and reason.",
         "How many decisions does the status show? | Which decisions are in the status?"
         " | What does the status say about decisions?",
         "How many decisions are shown in the status? | Tell me about decisions in the status."),
    fact("set paused", "To stop the operator's changes, set paused to true in the spec.",
         "How do I pause a DriftService? | How can I stop the operator from changing things?"
         " | What does paused do? | How do I pause the operator?",
         "How can a DriftService be paused? | Tell me how to pause it."),
    # Modes
    fact("solo, fused, mux and overlap", "The modes are solo, fused, mux and overlap, chosen by auto.",
         "Which modes does the engine have? | What are the modes? | List the engine modes."
         " | Name the modes of the engine.",
         "What modes are there in the engine? | Tell me the engine modes."),
    fact("PD multiplexing", "mux is PD multiplexing: decode on its partition, prefill by layers on the rest.",
         "What is mux mode? | What does the mode mux do? | Explain mux. | What does mux mean? | Mux?",
         "Tell me about the mode mux. | Could you explain mux mode?"),
    fact("chunked prefill", "fused is chunked prefill: decode tokens and a prefill chunk in one forward.",
         "What is fused mode? | What does the mode fused do? | Explain fused. | What does fused mean?"
         " | Fused?",
         "Tell me about the mode fused. | Could you explain fused mode?"),
    fact("two prioritised streams", "overlap runs two prioritised streams without a partition.",
         "What is overlap mode? | What does the mode overlap do? | Explain overlap."
         " | What does overlap mean? | Overlap?",
         "Tell me about the mode overlap. | Could you explain overlap mode?"),
    fact("one phase on the whole device", "solo runs one phase on the whole device.",
         "What is solo mode? | What does the mode solo do? | Explain solo. | What does solo mean? | Solo?",
         "Tell me about the mode solo. | Could you explain solo mode?"),
    fact("by predicted utility", "auto lets the planner choose the mode by predicted utility.",
         "What is auto mode? | What does the mode auto do? | Explain auto. | What does auto mean? | Auto?",
         "Tell me about the mode auto. | Could you explain auto mode?"),
    fact("un-chunked engines", "prefill-first is a baseline: it does what un-chunked engines do.",
         "What is prefill-first? | What does the mode prefill-first do? | Explain prefill-first."
         " | What does prefill-first mean?",
         "Tell me about the mode prefill-first. | Could you explain prefill-first mode?"),
    fact("by decode batch size", "batch-table is a baseline that looks the split up by decode batch size.",
         "What is batch-table? | What does the mode batch-table do? | Explain batch-table."
         " | What does batch-table mean?",
         "Tell me about the mode batch-table. | Could you explain batch-table mode?"),
    fact("policy of the paper", "muxwise is a baseline: the policy of the paper.",
         "What is muxwise? | What does the mode muxwise do? | Explain muxwise. | What does muxwise mean?",
         "Tell me about the mode muxwise. | Could you explain muxwise mode?"),
    # Engine
    fact("api and core", "An engine node has two processes: api and core.",
         "Which processes does a node have? | What processes make up an engine node?"
         " | How many processes has a node? | Name the processes of a node.",
         "What processes does an engine node have? | Tell me the processes of a node."),
    fact("HTTP, tokenizing and streaming", "The api process does HTTP, tokenizing and streaming.",
         "What does the api process do? | What is the api process for? | Explain the api process.",
         "Tell me what the api process does. | What work is done by the api process?"),
    fact("scheduler, model and KV cache", "The core process holds scheduler, model and KV cache.",
         "What does the core process do? | What is the core process for? | Explain the core process."
         " | What does the core hold?",
         "Tell me what the core process does. | What work is done by the core process?"),
    fact("cuda, cpu and sim", "There are three devices: cuda, cpu and sim.",
         "Which devices are there? | What devices does the engine support? | List the devices."
         " | Name the three devices.",
         "What devices can the engine use? | Tell me the devices of the engine."),
    fact("discrete-event clock", "The sim device is a discrete-event clock driven by the latency model.",
         "What is the sim device? | What does the sim device do? | Explain the sim device.",
         "Tell me about the sim device. | Could you explain the device sim?"),
    fact("threads pinned to disjoint cores", "On the cpu device lanes are threads pinned to disjoint cores.",
         "What is the cpu device? | What are lanes on the cpu device? | Explain the cpu device.",
         "Tell me about the cpu device. | Could you explain the device cpu?"),
    fact("streams of green contexts", "On the cuda device lanes are streams of green contexts.",
         "What is the cuda device? | What are lanes on the cuda device? | Explain the cuda device.",
         "Tell me about the cuda device. | Could you explain the device cuda?"),
    fact("never block on prefill", "The most valuable mechanism is to never block on prefill.",
         "What is the most valuable mechanism? | Which mechanism matters most?"
         " | What must the loop never do? | What is the most important trick?",
         "Tell me the most valuable mechanism. | Which trick matters most?"),
    fact("layer by layer",
         "Prefill is launched layer by layer, so that a change waits for one layer at most.",
         "How is prefill launched? | In what units is prefill launched? | Why is prefill cut by layers?"
         " | How does the engine launch prefill?",
         "Tell me how prefill is launched. | In which pieces is the prefill launched?"),
    fact("one CUDA graph", "Decode is one CUDA graph per partition and batch bucket.",
         "How is decode launched? | What is captured for decode? | Which graph does decode use?"
         " | How does the engine launch decode?",
         "Tell me how decode is launched. | In which form is the decode launched?"),
    fact("by laxity", "Requests are ordered by laxity, with ageing.",
         "How are requests ordered? | In which order are prefills served? | What orders the queue?"
         " | How does the scheduler order requests?",
         "Tell me how requests are ordered. | By what are the requests ordered?"),
    fact("at any layer boundary", "Prefill can be preempted at any layer boundary.",
         "When can prefill be preempted? | Where can a prefill be preempted? | How does preemption work?"
         " | At what points is preemption possible?",
         "Tell me where prefill can be preempted. | When is preemption possible?"),
    fact("smallest decode partition",
         "The planner takes the smallest decode partition that meets the tightest slack.",
         "Which decode partition does the planner take? | How is the decode partition chosen?"
         " | How large is the decode partition?",
         "Tell me how the decode partition is chosen. | What decode partition will the planner choose?"),
    fact("predicts the time of prefill and decode",
         "The latency model predicts the time of prefill and decode per SM count.",
         "What is the latency model? | What does the latency model predict? | Explain the latency model."
         " | What is the latency model for?",
         "Could you explain the latency model? | Tell me about the latency model."),
    fact("recursive least squares", "The latency model is refined by recursive least squares.",
         "How is the latency model refined? | How does the latency model learn online?"
         " | What refines the latency model?",
         "By what is the latency model refined? | Tell me how the latency model learns."),
    fact("contention guard covers", "The contention guard covers the slowdown when both phases run together.",
         "What is the contention guard? | What does the contention guard do?"
         " | Explain the contention guard. | Why is there a contention guard?",
         "Could you explain the contention guard? | Tell me about the contention guard."),
    fact("8 SMs", "On Hopper the smallest partition is 8 SMs.",
         "What is the smallest partition on Hopper? | How many SMs has the smallest group on Hopper?"
         " | How small can a partition be on Hopper?",
         "Tell me the smallest Hopper partition. | On Hopper, how small is a partition?"),
    fact("CUDA 12.4", "Green contexts need CUDA 12.4 or later.",
         "Which CUDA version do green contexts need? | What CUDA version is required?"
         " | Since which CUDA version are there green contexts?",
         "What version of CUDA do green contexts need? | Tell me the CUDA version needed."),
    fact("balanced, by count, overlap, fused", "The fall-back ladder is balanced, by count, overlap, fused.",
         "What is the fall-back ladder? | What is the fallback ladder? | Explain the fall-back ladder."
         " | Which fall-backs are there?",
         "Tell me the fall-back ladder. | Could you explain the fallback ladder?"),
    fact("Llama, Qwen2, Qwen3 and Mistral", "Drift runs Llama, Qwen2, Qwen3 and Mistral models.",
         "Which models does Drift support? | What model families are supported?"
         " | Which models can I serve? | List the supported models.",
         "What models can Drift run? | Tell me the supported model families."),
    fact("radix tree", "The prefix cache is a radix tree over page-aligned token hashes.",
         "How is the prefix cache organised? | What data structure is the prefix cache?"
         " | What is the prefix cache? | Which tree does the cache use?",
         "Tell me how the prefix cache is organised. | What structure has the prefix cache?"),
    fact("bit for bit", "The output is the same whatever the path, bit for bit on CPU.",
         "Is the output identical whatever the path? | Does multiplexing change the output?"
         " | Are results the same in all modes?",
         "Is the output the same in all modes? | Does the path change the output?"),
    fact("per-tenant salt", "A per-tenant salt at the hash root keeps tenants apart in the cache.",
         "How are tenants kept apart? | What keeps tenants apart?"
         " | How is the cache isolated between tenants?",
         "Tell me how tenants are kept apart. | In the cache, what separates tenants?"),
    fact("stored, removed and cleared", "The KV events are stored, removed and cleared.",
         "Which KV events are there? | What are the KV events? | List the KV events. | Name the KV events.",
         "What kinds of KV events exist? | Tell me the KV events."),
    fact("only once they are written", "Pages become shareable only once they are written.",
         "When do pages become shareable? | When may a page be shared? | When can a KV page be reused?",
         "Tell me when pages become shareable. | At what moment can pages be shared?"),
    # Router
    fact("picks the node for each request", "The router picks the node for each request.",
         "What does the router do? | What is the router? | Explain the router. | What is the router for?"
         " | Router?",
         "Tell me about the router. | Could you explain what the router does?"),
    fact("filter, score and pick", "The router works by filter, score and pick.",
         "How does the router choose a node? | What are the steps of routing?"
         " | Which steps does the router take? | How does routing work?",
         "Tell me how the router chooses. | In what steps does the router pick a node?"),
    fact("chained block hashes", "The prefix index maps chained block hashes to the workers that hold them.",
         "What is the prefix index? | What does the prefix index map? | Explain the prefix index."
         " | How does the prefix index work?",
         "Could you explain the prefix index? | Tell me about the prefix index."),
    fact("EXACT, DEGRADED and FALLBACK", "The index states are EXACT, DEGRADED and FALLBACK.",
         "What are the states of the index? | Which index states are there?"
         " | List the states of the prefix index. | Name the index states.",
         "Tell me the states of the index. | In which states can the index be?"),
    fact("429 with Retry-After", "When all nodes are full the answer is 429 with Retry-After.",
         "What happens when all nodes are full? | Which error comes when there is no headroom?"
         " | What does a full service answer? | When do I get a 429?",
         "What is answered if every node is full? | Tell me what happens when all nodes are full."),
    fact("503", "While loading or draining the answer is 503.",
         "What is answered while loading? | Which status comes while draining?"
         " | What does a loading node answer? | When do I get a 503?",
         "What is the answer while a node is loading? | Tell me the status while draining."),
    fact("404", "An unknown model is answered with 404.",
         "What happens with an unknown model? | Which status has an unknown model?"
         " | What if the model does not exist? | When do I get a 404?",
         "What status comes for an unknown model? | Tell me what an unknown model gets."),
    fact("400", "An over-long prompt is answered with 400, saying both lengths.",
         "What happens with an over-long prompt? | Which status has a prompt that is too long?"
         " | What if my prompt is too long?",
         "What status comes for an over-long prompt? | Tell me what a too long prompt gets."),
    fact("resumed on another node", "A broken stream is resumed on another node.",
         "What happens to a broken stream? | What if a node dies during a stream?"
         " | How is a broken stream repaired?",
         "Tell me what happens to broken streams. | If a stream breaks, what happens?"),
    fact("circuit breaker", "Each node has a circuit breaker in the router.",
         "What protects the router from a bad node? | What does each node have in the router?"
         " | How are failing nodes avoided?",
         "What protects against bad nodes? | Tell me how failing nodes are avoided."),
    fact("before the first byte", "The router retries only before the first byte.",
         "When does the router retry? | When are requests retried? | Until when is a retry allowed?"
         " | How does retry work?",
         "Tell me when the router retries. | At what point is a retry possible?"),
    fact("consistent hashing", "In FALLBACK the router uses consistent hashing with bounded loads.",
         "What does the router use in FALLBACK? | How are requests routed in FALLBACK?"
         " | What happens in the FALLBACK state?",
         "Tell me what FALLBACK uses. | In FALLBACK, how does the router work?"),
    # Operator
    fact("observe, reconcile and apply", "The operator works in three steps: observe, reconcile and apply.",
         "How does the operator work? | What are the steps of the operator? | What does the operator do?"
         " | Explain the operator. | What is the operator?",
         "Tell me how the operator works. | Could you explain the operator's steps?"),
    fact("kopf", "The operator is built on kopf.",
         "Which framework does the operator use? | What is the operator built on?"
         " | Which library is the operator written with?",
         "On what framework is the operator built? | Tell me the framework of the operator."),
    fact("keep flowing", "If the operator stops, requests keep flowing: the system is fail-static.",
         "What happens if the operator stops? | What if the operator dies? | What does fail-static mean?"
         " | Do requests need the operator?",
         "Tell me what happens when the operator is down. | If the operator dies, what happens?"),
    fact("0.70 to 0.85", "The pressure band is 0.70 to 0.85.",
         "What is the pressure band? | In which band is pressure kept?"
         " | Which band does the pressure have? | How high may pressure be?",
         "Tell me the band of the pressure. | Between which values is pressure kept?"),
    fact("never taken as zero", "Unknown metrics hold the last state; they are never taken as zero.",
         "How are unknown metrics treated? | What happens when metrics are unknown?"
         " | What if metrics are missing?",
         "Tell me how unknown metrics are treated. | If metrics are missing, what happens?"),
    fact("drift_slo_pressure", "The HPA metric is drift_slo_pressure with a target of 1.",
         "Which metric does the HPA use? | What is the HPA metric?"
         " | Which metric scales the service with HPA? | What is drift_slo_pressure?",
         "Tell me the metric for the HPA. | What metric is used by HPA?"),
    fact("drained in two phases", "Before it is deleted a node is drained in two phases.",
         "How is a node drained? | What happens before a node is deleted? | How does draining work?"
         " | Explain drain.",
         "Tell me how draining works. | In what way is a node drained?"),
    fact("per-component least RBAC",
         "Security means restricted pods, per-component least RBAC and network policies.",
         "How is Drift secured? | What about security? | Which security measures are there?"
         " | Explain the security of Drift.",
         "Tell me about security. | What security measures does Drift take?"),
    # Disaggregation, simulator, evidence
    fact("DOPD", "Disaggregation follows DOPD: prefill and decode run on different nodes.",
         "What is disaggregation? | How does disaggregation work? | Explain disaggregation."
         " | What is the other operating mode?",
         "Could you explain disaggregation? | Tell me about disaggregation."),
    fact("sizes prefill and decode roles", "DOPD sizes prefill and decode roles from the traffic.",
         "What is DOPD? | What does DOPD do? | Explain DOPD. | DOPD?",
         "Could you explain DOPD? | Tell me about DOPD."),
    fact("takes a second and no restart", "A role flip takes a second and no restart.",
         "How long does a role flip take? | How fast can a node change its role?"
         " | Does changing a role need a restart?",
         "Tell me how long a role flip takes. | Is a restart needed for a role flip?"),
    fact("layer by layer over shared memory or TCP", "KV is pushed layer by layer over shared memory or TCP.",
         "How is KV pushed? | How does KV get to the decode node? | How is the KV cache transferred?"
         " | What moves KV between nodes?",
         "Tell me how KV is transferred. | In what way is KV pushed to a decode node?"),
    fact("what if", "The simulator answers what if: another split policy, or one node fewer.",
         "What is the simulator? | What does the simulator answer? | What is the simulator for?"
         " | Explain the simulator.",
         "Could you explain the simulator? | Tell me about the simulator."),
    fact("2.20x", "The paper reports 2.20x mean goodput.",
         "What gain does the paper report? | How much better is the paper's goodput?"
         " | What is the mean gain in the paper?",
         "Tell me the gain reported by the paper. | How large is the paper's mean gain?"),
    fact("arXiv 2504.14489", "The Drift paper is arXiv 2504.14489.",
         "Which paper is Drift based on? | What is the arXiv number of the Drift paper?"
         " | Where is the paper? | Which paper describes PD multiplexing?",
         "Tell me the arXiv number of the paper. | On which paper is Drift based?"),
    fact("said to be unmeasured", "What has not been measured is said to be unmeasured.",
         "What about claims that were not measured? | How are unmeasured things treated?"
         " | What is said of things not measured?",
         "Tell me how unmeasured claims are treated. | If something was not measured, what is said?"),
    # The model itself
    fact("Qwen3", "drift-tiny is a Qwen3-shaped model.",
         "What is the architecture of drift-tiny? | Which shape does drift-tiny have?"
         " | What kind of model is drift-tiny? | What architecture are you?",
         "Which architecture has drift-tiny? | Tell me the architecture of drift-tiny."),
    fact("2.6 million", "drift-tiny has 2.6 million parameters.",
         "How many parameters does drift-tiny have? | How large is drift-tiny? | How big are you?"
         " | How many parameters do you have?",
         "What is the number of parameters of drift-tiny? | Tell me how big drift-tiny is."),
    fact("on a CPU", "drift-tiny was trained on a CPU by a script in the repository.",
         "How was drift-tiny trained? | Where was drift-tiny trained? | On what were you trained?"
         " | Who trained drift-tiny?",
         "Tell me how drift-tiny was trained. | On which hardware was drift-tiny trained?"),
    fact("32768", "The context of drift-tiny is 32768 tokens.",
         "What is the context length of drift-tiny? | How long is your context?"
         " | How many tokens can drift-tiny read? | What is your context length?",
         "Tell me the context length of drift-tiny. | How long can the context of drift-tiny be?"),
)  # fmt: skip

SMALL_TALK = (
    fact("drift-tiny", "I am drift-tiny, the small model embedded in Drift.",
         "Who are you? | What are you? | What is your name? | Introduce yourself."
         " | Tell me about yourself. | Who am I talking to? | Are you a bot?",
         "May I ask who you are? | What should I call you?"),
    fact("Hello", "Hello! Ask me about Drift, or give me something to copy, compute or remember.",
         "Hello | Hi | Hey | Hello! | Hi! | Hey there | Good morning | Good evening | Hello there!"
         " | Greetings",
         "Hi there! | Good afternoon"),
    fact("copy text",
         "I can answer questions about Drift, copy text, do small sums and recall what you told me.",
         "What can you do? | How can you help me? | What are your skills? | Help | What do you know?"
         " | What are you able to do?",
         "What are the things you can do? | How could you help me?"),
    fact("You are welcome", "You are welcome!",
         "Thanks | Thank you | Thank you! | Thanks a lot | Many thanks | Thx | Thank you very much",
         "Thanks so much | I thank you"),
    fact("Goodbye", "Goodbye!",
         "Bye | Goodbye | See you | Bye! | See you later | Good night | Bye bye",
         "Bye for now | See you soon"),
    fact("ready", "I am fine and ready to help.",
         "How are you? | How are you doing? | How do you do? | Are you OK? | How is it going?",
         "How are you today? | Are you well?"),
    fact("as an example",
         "I was made as an example: small enough to run anywhere, with answers that can be checked.",
         "Why were you made? | What are you for? | Why do you exist? | What is your purpose?"
         " | Why are you so small?",
         "For what purpose were you made? | Why is there a drift-tiny?"),
    fact("only English", "I speak only English, and only a little.",
         "Which languages do you speak? | Do you speak German? | Do you speak French?"
         " | What languages do you know? | Can you speak Spanish?",
         "What languages can you speak? | Do you know French?"),
    fact("OK", "OK.",
         "OK | Okay | Good | Fine | All right | Great | Nice",
         "OK, good | Very good"),
)  # fmt: skip

UNKNOWN = "I am a very small model and do not know that."
UNKNOWN_QUESTIONS = (
    "What is the capital of {place}?", "Who wrote {thing}?", "How is the weather in {place}?",
    "Tell me a joke about a {noun}.", "Write a poem about a {noun}.", "Who invented the {noun}?",
    "What is the meaning of life?", "How old is {name}?", "Where can I buy a {noun}?",
    "Translate {noun} into French.", "Who is the president of {place}?", "Why is the sky blue?",
    "How do I cook a {noun}?", "What is the best {noun} in {place}?",
    "Write a program that sorts a list.", "How far is {place}?",
)  # fmt: skip

OPENINGS = (
    "Please tell me: ", "Quick question: ", "Hey, ", "One more question: ", "I wonder: ",
    "Hi! ", "Can you tell me: ", "My question: ", "Do you know: ", "Sorry to ask, but ",
    "About Drift: ", "Well, ", "OK. ", "Please: ", "So, ",
)  # fmt: skip
EXTRAS = words.listed(
    """exactly really actually then now please again here the a of in about is do you me it would"""
)
CLOSINGS = (
    " Please.", " In short.", " Thanks!", " I am new to this.", " Keep it short.", " One sentence is enough.",
)  # fmt: skip
FRAMES = (
    "Describe {}.", "What can you say about {}?", "Give me a definition of {}.",
    "{}: what is that?", "What about {}?", "I would like to understand {}.",
    "Please explain {} to me.", "How would you describe {}?", "Say what {} is.",
    "Help me understand {}.", "I do not understand {}.", "What should I know about {}?",
    "In one sentence, {}?",
)  # fmt: skip
"""Further wordings for every fact that has an "Explain ..." among its questions; none of them is held out."""

SYSTEM_PROMPTS = (
    "You are a helpful assistant.", "You are drift-tiny, a small assistant.", "Answer briefly.",
    "You are a helpful assistant that knows Drift.", "Answer questions about Drift.", "Be concise.",
)  # fmt: skip


def worded(rng: random.Random, question: str) -> str:
    """The question as people put it: another frame, an opening, a word less or more; never a held-out one."""
    while True:
        text = question
        if text.startswith("Explain ") and rng.random() < 0.7:
            text = rng.choice(FRAMES).format(text.removeprefix("Explain ").rstrip("."))
            text = text[0].upper() + text[1:]
        pieces = text.split(" ")
        if len(pieces) > 3 and rng.random() < 0.25:
            del pieces[rng.randrange(len(pieces) - 1)]
        if rng.random() < 0.2:
            pieces.insert(
                rng.randrange(len(pieces)), words.word(rng) if rng.random() < 0.5 else rng.choice(EXTRAS)
            )
        text = " ".join(pieces)
        opening = rng.choice(OPENINGS) if rng.random() < 0.4 else ""
        if opening.endswith((", ", ": ", "but ")) and not text[:2].isupper() and not text.startswith("Drift"):
            text = text[0].lower() + text[1:]
        text = opening + text + (rng.choice(CLOSINGS) if rng.random() < 0.1 else "")
        change = rng.random()
        if change < 0.12:
            text = text.lower()
        elif change < 0.24:
            text = text.rstrip("?.! ")
        if normal(text) not in HELD_OUT:
            return text


def normal(question: str) -> str:
    """A question without what does not make it another question."""
    return question.lower().rstrip("?.! ")


FRESH = (
    "What is this Drift thing about?",
    "Of all levers, which one reacts quickest?",
    "I keep reading about the dispatch weight, what is it?",
    "Which pieces make up Drift?",
    "TTFT is short for what?",
    "What do people mean when they say goodput?",
    "What is stored in the KV cache?",
    "I saw attainment in the status, what is that?",
    "How is slack defined?",
    "What exactly is a lane on the GPU?",
    "With kubectl, how would I create a DriftService?",
    "What subcommands come with drift?",
    "When would I use drift bench?",
    "Show me how to call the chat endpoint.",
    "What do I put as apiVersion in a DriftService?",
    "If I set no attainment, which default is used?",
    "How do I set the limits for autoscaling?",
    "SLOFeasible turned false, why?",
    "What modes can the engine run in?",
    "How does overlap mode work?",
    "What is the baseline prefill-first?",
    "Of which processes does an engine node consist?",
    "On which devices can the engine run?",
    "How do lanes look on the cuda device?",
    "How does Drift launch decode?",
    "How does the planner pick the decode partition?",
    "What is the purpose of the contention guard?",
    "Which steps has the fall-back ladder?",
    "Will the output differ between paths?",
    "From when on is a page shareable?",
    "What does the prefix index store?",
    "Which status code do I get while a node is loading?",
    "My stream broke, what does Drift do?",
    "What is the routing method in FALLBACK?",
    "Do requests continue when the operator is gone?",
    "Which metric should I give to the HPA?",
    "What does disaggregation mean in Drift?",
    "How does Drift push KV to another node?",
    "Where can I read the paper behind Drift?",
    "What size is drift-tiny?",
)
"""One more wording for every third fact, written after the shipped weights were final and put to them once."""

HELD_OUT = frozenset(
    [normal(question) for item in (*FACTS, *SMALL_TALK) for question in item.held_out]
    + [normal(question) for question in FRESH]
)


def practice(rng: random.Random) -> Sample:
    """One to four facts in a conversation, now and then behind a system prompt or as plain questions and
    answers."""
    chosen = rng.sample(FACTS, rng.choice((1, 1, 1, 2, 3, 4)))
    pairs = [(rng.choice(item.questions), item.answer) for item in chosen]
    if rng.random() < 0.1:
        plain: list[Turn] = []
        for question, answer in pairs:
            plain += [Turn("user", f"Q: {worded(rng, question)}\nA:"), Turn("assistant", f" {answer}\n")]
        return Sample("facts", tuple(plain), chosen[-1].expected, plain=True)
    return Sample("facts", (*system(rng), *exchange(rng, pairs)), chosen[-1].expected)


def small_talk(rng: random.Random) -> Sample:
    """Greetings and the model's own identity, things it does not know, and facts in between."""
    pairs: list[tuple[str, str]] = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        form = rng.random()
        if form < 0.3:
            pairs.append((unknown_question(rng), UNKNOWN))
        else:
            item = rng.choice(SMALL_TALK) if form < 0.85 else rng.choice(FACTS)
            pairs.append((rng.choice(item.questions), item.answer))
    return Sample("chat", (*system(rng), *exchange(rng, pairs)), pairs[-1][1])


def system(rng: random.Random) -> tuple[Turn, ...]:
    """A system prompt, one time in five."""
    return (Turn("system", rng.choice(SYSTEM_PROMPTS)),) if rng.random() < 0.2 else ()


def exchange(rng: random.Random, pairs: list[tuple[str, str]]) -> list[Turn]:
    """Questions and answers as turns."""
    turns: list[Turn] = []
    for question, answer in pairs:
        turns += [Turn("user", worded(rng, question)), Turn("assistant", answer)]
    return turns


def unknown_question(rng: random.Random) -> str:
    """A question outside what the model was taught."""
    return rng.choice(UNKNOWN_QUESTIONS).format(
        place=rng.choice(words.CITIES),
        thing=words.thing(rng),
        noun=rng.choice(words.NOUNS),
        name=rng.choice(words.NAMES),
    )


def fresh() -> list[Sample]:
    """The wordings that nobody had seen an answer to while the training was being arranged."""
    return [
        Sample("facts", (Turn("user", question), Turn("assistant", item.answer)), item.expected)
        for question, item in zip(FRESH, FACTS[::3], strict=True)
    ]


def held_out(items: tuple[Fact, ...], kind: str) -> list[Sample]:
    """Every held-out question of these facts."""
    return [
        Sample(kind, (Turn("user", question), Turn("assistant", item.answer)), item.expected)
        for item in items
        for question in item.held_out
    ]

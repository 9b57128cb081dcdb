"""What the model knows: facts about Drift and a little small talk, each asked for in several ways.

A fact has an answer, the phrase by which an answer is judged, questions to train on and questions kept for
the evaluation. Nothing of a held-out question is trained on except its subject under other wordings.
"""

import dataclasses
import random
import re

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
         " | Describe Drift in one sentence. | Drift?"
         " | Drift is what? | Sum up Drift for me. | Introduce Drift. | What kind of software is Drift?"
         " | What would I use Drift for? | Drift in one line | what is the point of drift",
         "So what exactly is Drift? | Give me a short description of Drift."),
    fact("three levers",
         "Drift keeps its promise by moving three levers: the split, the dispatch weight and the replicas.",
         "How does Drift keep its promise? | By what means does Drift keep its promises?"
         " | What does Drift move to keep the promise? | How is the promise kept?"
         " | Through what does Drift hold its promise? | What lets Drift meet its promise?"
         " | Describe how Drift keeps what it promises. | Keeping the promise: how does it work?"
         " | Say how the promise is kept. | What is turned when the promise is in danger?",
         "How does Drift manage to keep its promise? | In which way is a promise kept by Drift?"),
    fact("split, dispatch weight and replicas", "The levers are split, dispatch weight and replicas.",
         "What are the levers? | Name the three levers of Drift. | Which levers does Drift have?"
         " | List the levers. | What levers are there?"
         " | Give me the three levers. | Levers of Drift? | What can Drift turn?"
         " | The three levers, please | Enumerate the levers for me. | Which knobs does Drift have?"
         " | What are the three knobs?",
         "Can you name the levers? | Which three levers does Drift use?"),
    fact("the split is the fastest",
         "Of the three levers, the split is the fastest: it moves in 10 to 100 ms.",
         "Which lever is the fastest? | What is the fastest lever? | Which lever moves first?"
         " | Name the fastest lever of Drift."
         " | Fastest lever? | Which of the three levers is quick?"
         " | What can be changed within milliseconds? | The quickest lever is which one?"
         " | Which lever takes 10 to 100 ms? | What is adjusted fastest?"
         " | Which knob can be turned fastest?",
         "What lever moves the fastest? | Tell me the fastest of the levers."),
    fact("the number of replicas is the slowest",
         "Of the three levers, the number of replicas is the slowest: it takes 15 to 60 s.",
         "Which lever is the slowest? | What is the slowest lever? | Which lever moves last?"
         " | Name the slowest lever of Drift."
         " | Slowest lever? | Which of the three levers takes longest? | What takes 15 to 60 s to change?"
         " | The slowest knob is which one? | Which lever needs most time? | What is adjusted last?",
         "What lever is slowest of all? | Tell me the slowest of the levers."),
    fact("between prefill and decode", "The split says how each GPU is divided between prefill and decode.",
         "What is the split? | What does the split mean? | Explain the split. | Define split."
         " | What does split decide?"
         " | What does the split divide? | Split? | How is a GPU divided by the split?"
         " | I want to know about the split. | split: meaning | What is a split in Drift?"
         " | Say what the split decides.",
         "What do you mean by the split? | Could you explain the split lever?"),
    fact("requests are spread over nodes", "The dispatch weight says how requests are spread over nodes.",
         "What is the dispatch weight? | What does the dispatch weight mean?"
         " | Explain the dispatch weight. | Define dispatch weight. | What does dispatch weight decide?"
         " | Dispatch weight? | What is decided by the dispatch weight?"
         " | How do requests get spread over nodes? | What spreads the requests?"
         " | dispatch weight: meaning | I want to know about the dispatch weight."
         " | What is a dispatch weight for?",
         "What do you mean by dispatch weight? | Could you explain the dispatch weight lever?"),
    fact("how many nodes there are", "The replicas lever says how many nodes there are.",
         "What is the replicas lever? | What does the replicas lever mean? | Explain the replicas lever."
         " | Define the replicas lever. | What do replicas decide?"
         " | Replicas lever? | What does the lever replicas decide? | What is the lever called replicas?"
         " | Which lever sets the number of nodes? | I want to know about the replicas lever."
         " | replicas: what does that lever do",
         "What do you mean by the replicas lever? | Could you explain replicas?"),
    fact("into a Kubernetes object", "A user writes the promise into a Kubernetes object, the DriftService.",
         "Where does a user write the promise? | Where is the promise written?"
         " | How does a user state the promise? | Who writes the promise?"
         " | Where do I write my promise? | Where can I put the promise? | Where does the promise stand?"
         " | How do I tell Drift my promise? | Place of the promise? | Which object holds the promise?",
         "Where do users write their promise? | In what place is the promise written?"),
    fact("operator, router, engine and kernels",
         "Drift consists of operator, router, engine and kernels, and the drift command.",
         "What are the parts of Drift? | What does Drift consist of? | Which components does Drift have?"
         " | Name the parts of Drift. | List the components."
         " | What are Drift's components? | Parts of Drift? | What pieces belong to Drift?"
         " | What is inside Drift? | How is Drift put together? | Drift is built from what?"
         " | Enumerate the parts of Drift.",
         "Which parts is Drift made of? | Name the components of Drift."),
    fact("Apache-2.0", "drift-tiny is licensed under Apache-2.0.",
         "What is the licence of drift-tiny? | Which license does drift-tiny have?"
         " | Under what licence is drift-tiny? | How is drift-tiny licensed?"
         " | Licence of drift-tiny? | Is drift-tiny free to use?"
         " | Under which terms is drift-tiny given away? | May I use drift-tiny, what is the licence?"
         " | license drift-tiny | State the licence of drift-tiny. | What licence covers drift-tiny?",
         "What licence does drift-tiny use? | Tell me the license of drift-tiny."),
    fact("OpenAI-compatible", "Drift offers an OpenAI-compatible API with chat completions and completions.",
         "Which API does Drift offer? | What API does Drift have? | What kind of API is it?"
         " | Is the API compatible with OpenAI? | Which HTTP interface does Drift offer?"
         " | What is the API like? | Can I use an OpenAI client? | Does Drift speak the OpenAI protocol?"
         " | Which endpoints does Drift offer? | API? | Does my OpenAI client work with Drift?"
         " | What interface do clients see?",
         "What API is offered by Drift? | Tell me about the API of Drift."),
    # Words
    fact("time to first token", "TTFT means time to first token.",
         "What is TTFT? | What does TTFT mean? | What does TTFT stand for? | Define TTFT. | Explain TTFT."
         " | TTFT?"
         " | Expand TTFT. | What is the long form of TTFT? | Spell out TTFT."
         " | The abbreviation TTFT means what? | ttft meaning | TTFT, what is that?"
         " | What do the letters TTFT mean?",
         "Could you explain TTFT? | What is meant by TTFT?"),
    fact("time between tokens", "TBT means time between tokens.",
         "What is TBT? | What does TBT mean? | What does TBT stand for? | Define TBT. | Explain TBT."
         " | TBT?"
         " | Expand TBT. | What is the long form of TBT? | Spell out TBT."
         " | The abbreviation TBT means what? | tbt meaning | TBT, what is that?"
         " | What do the letters TBT mean?",
         "Could you explain TBT? | What is meant by TBT?"),
    fact("promised bound on TTFT and TBT", "The SLO is the promised bound on TTFT and TBT.",
         "What is an SLO? | What is the SLO? | What does SLO mean? | Define SLO. | Explain the SLO. | SLO?"
         " | SLOs, what are they? | What does an SLO promise? | slo meaning | An SLO is what?"
         " | What do you call SLO? | What does the SLO bound? | Say what an SLO is.",
         "Could you explain SLO? | What is meant by an SLO?"),
    fact("highest request rate", "Goodput is the highest request rate at which both bounds are still met.",
         "What is goodput? | What does goodput mean? | Define goodput. | Explain goodput. | Goodput?"
         " | What does Drift call goodput?"
         " | Goodput is what? | How is goodput defined here? | Goodput, what is it?"
         " | What number is called goodput? | meaning of goodput | Which rate is the goodput?"
         " | What does the word goodput stand for?",
         "Could you explain goodput? | What is meant by goodput?"),
    fact("prompt's pass", "Prefill is the prompt's pass through the model.",
         "What is prefill? | What does prefill mean? | Define prefill. | Explain prefill. | Prefill?"
         " | What happens in prefill?"
         " | Prefill is what? | What goes on during prefill? | meaning of prefill"
         " | Which pass is the prefill? | What does the engine do in prefill?"
         " | What is done in the prefill phase? | Prefill phase, what is it?",
         "Could you explain prefill? | What is meant by prefill?"),
    fact("one token per running request", "Decode makes one token per running request in each step.",
         "What is decode? | What does decode mean? | Define decode. | Explain decode. | Decode?"
         " | What happens in decode?"
         " | Decode is what? | What goes on during decode? | meaning of decode"
         " | What does each decode step make? | What does the engine do in decode?"
         " | What is done in the decode phase? | Decode phase, what is it?",
         "Could you explain decode? | What is meant by decode?"),
    fact("keys and values", "The KV cache keeps the keys and values of earlier tokens.",
         "What is the KV cache? | What does the KV cache keep? | Define KV cache. | Explain the KV cache."
         " | KV cache?"
         " | What does a KV cache hold? | KV cache, what is it? | What is inside the KV cache?"
         " | What is the cache of keys for? | meaning of KV cache | Why is there a KV cache?"
         " | The KV cache contains what?",
         "Could you explain the KV cache? | What is meant by KV cache?"),
    fact("already cached", "Reused tokens are the part of a prompt whose KV is already cached.",
         "What are reused tokens? | What does reused tokens mean? | Define reused tokens."
         " | Explain reused tokens. | Which tokens are reused?"
         " | Reused tokens, what are they? | When is a token reused? | What counts as reused?"
         " | meaning of reused tokens | Which part of a prompt is reused?"
         " | What are tokens that are reused? | Reused tokens?",
         "Could you explain reused tokens? | What is meant by reused tokens?"),
    fact("streaming multiprocessor", "An SM is a streaming multiprocessor of a GPU.",
         "What is an SM? | What does SM mean? | What does SM stand for? | Define SM. | Explain SM. | SM?"
         " | Expand SM. | What is the long form of SM? | Spell out SM. | SM on a GPU means what?"
         " | What are SMs? | What do the letters SM mean? | sm meaning",
         "Could you explain SM? | What is meant by an SM?"),
    fact("share of requests that meet", "Attainment is the share of requests that meet their bounds.",
         "What is attainment? | What does attainment mean? | Define attainment. | Explain attainment."
         " | Attainment?"
         " | Attainment, what is it? | What share is the attainment? | meaning of attainment"
         " | How is attainment defined? | What does attainment count?"
         " | What does an attainment of 95 % say? | Attainment is what?",
         "Could you explain attainment? | What is meant by attainment?"),
    fact("subset of a GPU's SMs", "A green context is a CUDA context that owns a subset of a GPU's SMs.",
         "What is a green context? | What are green contexts? | Define green context."
         " | Explain green contexts. | Green contexts?"
         " | Green context, what is it? | What does a green context own? | meaning of green context"
         " | What are green contexts in CUDA? | What does CUDA call a green context?"
         " | A green context is what? | What can a green context do?",
         "Could you explain green contexts? | What is meant by a green context?"),
    fact("time left before the deadline",
         "Laxity is the time left before the deadline after the predicted work.",
         "What is laxity? | What does laxity mean? | Define laxity. | Explain laxity. | Laxity?"
         " | Laxity is what? | How is laxity computed? | meaning of laxity | Laxity, what is it?"
         " | What time is called laxity? | How do you define laxity?"
         " | What does the laxity of a request say?",
         "Could you explain laxity? | What is meant by laxity?"),
    fact("time a request can still lose",
         "Slack is the time a request can still lose before it misses its target.",
         "What is slack? | What does slack mean? | Define slack. | Explain slack. | Slack?"
         " | Slack is what? | meaning of slack | Slack, what is it? | What time is called slack?"
         " | How much slack has a request? | What does the slack of a request say?"
         " | What do you call slack?",
         "Could you explain slack? | What is meant by slack?"),
    fact("room a node has left", "Headroom is the room a node has left before it breaks a target.",
         "What is headroom? | What does headroom mean? | Define headroom. | Explain headroom. | Headroom?"
         " | Headroom is what? | meaning of headroom | Headroom, what is it?"
         " | What does the headroom of a node say? | What do you call headroom?"
         " | How much room has a node left? | Which room is the headroom?",
         "Could you explain headroom? | What is meant by headroom?"),
    fact("demand divided by supply", "Pressure is demand divided by supply at the best feasible split.",
         "What is pressure? | What does pressure mean? | Define pressure. | Explain pressure."
         " | How is pressure computed?"
         " | Pressure is what? | meaning of pressure | Pressure, what is it?"
         " | What is divided to get the pressure? | What do you call pressure? | Formula of pressure?"
         " | How does one compute the pressure? | Pressure?",
         "Could you explain pressure? | What is meant by pressure?"),
    fact("stream of a green context", "On a GPU a lane is the stream of a green context.",
         "What is a lane? | What does lane mean? | Define lane. | Explain lanes."
         " | What is a lane on a GPU?"
         " | Lane is what? | meaning of lane | Lanes, what are they? | What do you call a lane?"
         " | What are lanes? | Which stream is a lane? | Lane?",
         "Could you explain lanes? | What is meant by a lane?"),
    # Command line and first steps
    fact("make run", "Use make run: it starts the whole system on one machine.",
         "How do I start Drift on one machine? | Which command starts everything on a laptop?"
         " | How do I run Drift locally? | What does make run do? | How do I try Drift?"
         " | I want to start Drift on my laptop. | What do I type to run everything?"
         " | Start the whole system locally, how? | Is there one command for a first try?"
         " | Which make target starts Drift? | Show me how to start Drift on one machine."
         " | How do I get going with Drift? | How do I run the demo?",
         "How can I run Drift on my own machine? | Which command runs Drift locally?"),
    fact("no GPU is needed", "For the demo no GPU is needed and no cluster.",
         "Do I need a GPU for the demo? | Is a GPU required to try Drift? | Does make run need a GPU?"
         " | Can I try Drift without a GPU?"
         " | GPU necessary? | Does the demo work without a GPU?"
         " | Will the demo run on a machine without GPU? | What hardware does the demo need?"
         " | Do I need a cluster for the demo? | I have no GPU, can I still try it?"
         " | Does the demo need a cluster?",
         "Is a GPU needed for the demo? | Must I have a GPU to try it?"),
    fact("kubectl apply -f driftservice.yaml", "On a cluster run kubectl apply -f driftservice.yaml.",
         "How do I create a DriftService? | How do I apply a DriftService with kubectl?"
         " | Which command creates the service on a cluster? | How do I deploy a model on a cluster?"
         " | How can a DriftService be created? | Create a DriftService. | Apply driftservice.yaml how?"
         " | What do I type to create a DriftService? | I want to deploy a model on my cluster."
         " | How is a DriftService brought onto a cluster? | Show me how to apply a DriftService.",
         "What command applies a DriftService? | How can I create a DriftService with kubectl?"),
    fact("helm install drift charts/drift", "Install it with helm install drift charts/drift.",
         "How do I install Drift on Kubernetes? | What is the helm command? | How do I install the chart?"
         " | How is Drift installed on a cluster?"
         " | Install Drift on my cluster. | What is the way to install Drift? | helm command?"
         " | Show me how to install the chart. | I want to install Drift on Kubernetes."
         " | What do I type to install with helm? | How do I get Drift onto Kubernetes?",
         "How can I install Drift with helm? | Which helm command installs Drift?"),
    fact("kubectl get driftservice", "Run kubectl get driftservice to see whether the promise is kept.",
         "How do I see whether the promise is kept? | How do I check a DriftService?"
         " | Which kubectl command shows the attainment? | How do I look at the state of a DriftService?"
         " | Is my promise kept? How do I see it? | Show me the state of a DriftService."
         " | How do I list my DriftServices? | How do I look up the attainment?"
         " | I want to see the state of my service. | What do I type to see the state?"
         " | Where do I see whether the SLO is met?",
         "How can I check whether the promise is kept? | What command shows the state of a DriftService?"),
    fact("up, bench, simulate, explain and top",
         "The drift command has up, bench, simulate, explain and top.",
         "What are the subcommands of drift? | What can the drift command do?"
         " | Which commands does the drift tool have? | List the drift subcommands."
         " | Subcommands of drift? | What does the drift tool offer?"
         " | I want a list of the drift commands. | Show the subcommands of drift."
         " | What comes after drift on the command line? | Which subcommands are there?"
         " | What is the drift command able to do?",
         "Name the subcommands of the drift command. | Which subcommands does drift have?"),
    fact("control loop as the operator",
         "drift up runs the same control loop as the operator, with local processes.",
         "What does drift up do? | Explain drift up. | What is drift up?"
         " | What happens when I run drift up?"
         " | drift up? | What is the use of drift up? | I ran drift up, what happens?"
         " | When do I use drift up? | Purpose of drift up? | What does the command drift up run?"
         " | Which loop does drift up run?",
         "Tell me what drift up does. | Could you explain drift up?"),
    fact("runs the simulator", "drift simulate runs the simulator on a trace and answers what-if questions.",
         "What does drift simulate do? | Explain drift simulate. | What is drift simulate?"
         " | What happens when I run drift simulate?"
         " | drift simulate? | What is the use of drift simulate? | I ran drift simulate, what happens?"
         " | When do I use drift simulate? | Purpose of drift simulate?"
         " | What does the command drift simulate run? | Which command runs the simulator?",
         "Tell me what drift simulate does. | Could you explain drift simulate?"),
    fact("measures latency and goodput", "drift bench measures latency and goodput of a running service.",
         "What does drift bench do? | Explain drift bench. | What is drift bench?"
         " | What happens when I run drift bench?"
         " | drift bench? | What is the use of drift bench? | I ran drift bench, what happens?"
         " | Purpose of drift bench? | What does the command drift bench measure?"
         " | Which command measures goodput? | How do I measure latency?",
         "Tell me what drift bench does. | Could you explain drift bench?"),
    fact("live view", "drift top is a live view of the nodes.",
         "What does drift top do? | Explain drift top. | What is drift top?"
         " | What happens when I run drift top?"
         " | drift top? | What is the use of drift top? | I ran drift top, what do I see?"
         " | When do I use drift top? | Purpose of drift top? | What does the command drift top show?"
         " | Which command shows the nodes live?",
         "Tell me what drift top does. | Could you explain drift top?"),
    fact("why a decision was taken", "drift explain tells why a decision was taken.",
         "What does drift explain do? | Explain drift explain. | What is drift explain?"
         " | What happens when I run drift explain?"
         " | drift explain? | What is the use of drift explain? | I ran drift explain, what do I learn?"
         " | When do I use drift explain? | Purpose of drift explain?"
         " | What does the command drift explain say? | Which command says why something was decided?",
         "Tell me what drift explain does. | Could you explain drift explain?"),
    fact("curl on /v1/chat/completions", "Use curl on /v1/chat/completions of the service.",
         "How do I send a chat request? | How do I call the chat endpoint?"
         " | How can I talk to the model over HTTP? | How do I query the model?"
         " | Chat with the model, how? | What is the path of the chat endpoint?"
         " | How do I reach the model by HTTP? | I want to send a chat message with curl."
         " | Which URL takes chat requests? | How do I ask the model something from the shell?"
         " | Where do I post a chat request?",
         "How do I send a request to the chat endpoint? | How can I query the model over HTTP?"),
    # DriftService
    fact("states model, engine and SLO",
         "A DriftService is the Kubernetes object that states model, engine and SLO.",
         "What is a DriftService? | What does a DriftService state? | Define DriftService."
         " | Explain DriftService. | DriftService?"
         " | DriftService is what? | meaning of DriftService | What do I write into a DriftService?"
         " | DriftService, what is it? | Which object states model and SLO? | What is in a DriftService?"
         " | What do you call a DriftService?",
         "Could you explain a DriftService? | What is meant by DriftService?"),
    fact("drs", "The short name of DriftService is drs.",
         "What is the short name of DriftService? | How is DriftService abbreviated?"
         " | Which short name has a DriftService?"
         " | Short name of DriftService? | How do I abbreviate DriftService in kubectl?"
         " | Is there a short name for driftservice? | What is DriftService called for short?"
         " | Abbreviation of DriftService? | What can I type instead of driftservice?"
         " | Which abbreviation does kubectl accept for a DriftService? | What is drs?",
         "Tell me the short name of a DriftService. | What short name does DriftService have?"),
    fact("drift.ai/v1alpha1", "The API version is drift.ai/v1alpha1.",
         "What is the apiVersion of a DriftService? | Which API group does DriftService use?"
         " | What API version has a DriftService?"
         " | apiVersion? | What is the API version? | Which version does the API have?"
         " | apiVersion of DriftService? | State the apiVersion. | What stands in the apiVersion field?"
         " | Which apiVersion is right? | To which API group belongs a DriftService?",
         "Tell me the apiVersion of DriftService. | Which apiVersion does a DriftService have?"),
    fact("400 ms", "The default TTFT target is 400 ms.",
         "What is the default TTFT target? | Which TTFT target is the default?"
         " | How high is the TTFT target by default? | Default TTFT?"
         " | TTFT target if I set none? | What is TTFT set to by default?"
         " | Without a setting, what is the TTFT target? | Which bound has TTFT by default?"
         " | The default for TTFT is what? | How many ms is the default TTFT? | ttft default",
         "Tell me the default target for TTFT. | What TTFT target applies by default?"),
    fact("80 ms", "The default TBT target is 80 ms.",
         "What is the default TBT target? | Which TBT target is the default?"
         " | How high is the TBT target by default? | Default TBT?"
         " | TBT target if I set none? | What is TBT set to by default?"
         " | Without a setting, what is the TBT target? | Which bound has TBT by default?"
         " | The default for TBT is what? | How many ms is the default TBT? | tbt default",
         "Tell me the default target for TBT. | What TBT target applies by default?"),
    fact("99 %", "The default attainment is 99 %.",
         "What is the default attainment? | Which attainment is the default?"
         " | How high is the attainment by default? | Default attainment?"
         " | Attainment without a setting? | What is attainment set to by default?"
         " | How much attainment is promised by default? | Which share must be attained by default?"
         " | The default for attainment is what? | How many percent is the default attainment?"
         " | attainment default",
         "Tell me the default attainment. | What attainment applies by default?"),
    fact("raises the TTFT budget", "perTokenMs raises the TTFT budget by the uncached length of the prompt.",
         "What is perTokenMs? | What does perTokenMs do? | Explain perTokenMs. | What is perTokenMs for?"
         " | perTokenMs? | What is the use of perTokenMs? | perTokenMs is what?"
         " | What does perTokenMs raise? | When do I set perTokenMs? | What effect has perTokenMs?"
         " | Which field raises the TTFT budget?",
         "Tell me what perTokenMs does. | Could you explain perTokenMs?"),
    fact("hf, pvc, file, oci and s3", "Model addresses may be hf, pvc, file, oci and s3.",
         "Which model URIs are allowed? | What can model.uri be? | Where can a model come from?"
         " | Which model addresses exist?"
         " | Allowed model addresses? | From where can models be loaded?"
         " | Which schemes can a model address have? | What kinds of model address are there?"
         " | Where may the weights be? | Can I load a model from s3? | Is a model from a pvc possible?"
         " | model uri schemes",
         "What model URIs can I use? | Tell me the allowed model addresses."),
    fact("minReplicas and maxReplicas", "Autoscaling is bounded by minReplicas and maxReplicas.",
         "What bounds autoscaling? | Which fields bound the autoscaling? | How do I limit autoscaling?"
         " | What are the limits of autoscaling?"
         " | What keeps autoscaling in bounds? | Limit autoscaling."
         " | Fields for the limits of autoscaling? | How do I set the smallest number of replicas?"
         " | How do I cap the replicas? | Which two fields hold autoscaling in bounds?"
         " | Autoscaling limits?",
         "Which fields limit autoscaling? | How is autoscaling bounded?"),
    fact("Operator, HPA, KEDA or External", "The autoscaling mode is Operator, HPA, KEDA or External.",
         "Which autoscaling modes are there? | What are the autoscaling modes?"
         " | What can the autoscaling mode be? | List the autoscaling modes."
         " | Autoscaling modes? | In which ways can Drift autoscale? | Who can do the autoscaling?"
         " | Can I scale with KEDA? | Is there an HPA mode? | Enumerate the autoscaling modes."
         " | To what can the autoscaling mode be set?",
         "Name the modes of autoscaling. | Which modes has autoscaling?"),
    fact("SLOMet", "The condition SLOMet says whether the promise is met.",
         "Which condition says that the promise is met? | What does SLOMet say?"
         " | What is the SLOMet condition? | Explain SLOMet."
         " | SLOMet? | SLOMet is what? | How do I see in the conditions whether the promise is met?"
         " | What is the use of SLOMet? | What is the condition for a met promise? | When is SLOMet true?"
         " | meaning of SLOMet",
         "Tell me what SLOMet says. | Which condition tells that the SLO is met?"),
    fact("even alone on an empty node",
         "SLOFeasible is false when one request misses its target even alone on an empty node.",
         "When is SLOFeasible false? | What does SLOFeasible mean? | Explain SLOFeasible."
         " | What is SLOFeasible?"
         " | SLOFeasible? | SLOFeasible is what? | Why is my SLOFeasible false? | meaning of SLOFeasible"
         " | What makes SLOFeasible false? | What does it mean that the SLO is not feasible?"
         " | Which condition says that a target is impossible?",
         "Tell me what SLOFeasible says. | Why would SLOFeasible be false?"),
    fact("last ten decisions", "The status shows the last ten decisions with lever, from, to and reason.",
         "How many decisions does the status show? | Which decisions are in the status?"
         " | What does the status say about decisions?"
         " | What decisions can I see in the status? | Where are the last decisions shown?"
         " | Status: which decisions? | What is listed in the status? | How far back does the status go?"
         " | Decisions in the status? | What does the status keep of the past?",
         "How many decisions are shown in the status? | Tell me about decisions in the status."),
    fact("set paused", "To stop the operator's changes, set paused to true in the spec.",
         "How do I pause a DriftService? | How can I stop the operator from changing things?"
         " | What does paused do? | How do I pause the operator?"
         " | Pause Drift. | How do I set the operator on pause? | I want the operator to change nothing."
         " | Which field pauses the operator? | What do I set to pause? | Pausing a DriftService?"
         " | How do I hold the operator's changes? | paused?",
         "How can a DriftService be paused? | Tell me how to pause it."),
    # Modes
    fact("solo, fused, mux and overlap", "The modes are solo, fused, mux and overlap, chosen by auto.",
         "Which modes does the engine have? | What are the modes? | List the engine modes."
         " | Name the modes of the engine."
         " | Engine modes? | Modes of the engine? | In how many modes can the engine work?"
         " | Which modes does auto choose from? | Enumerate the modes. | What is the list of modes?"
         " | Which modes exist?",
         "What modes are there in the engine? | Tell me the engine modes."),
    fact("PD multiplexing", "mux is PD multiplexing: decode on its partition, prefill by layers on the rest.",
         "What is mux mode? | What does the mode mux do? | Explain mux. | What does mux mean? | Mux?"
         " | mux is what? | What is mux good for? | How do prefill and decode share a GPU in mux?"
         " | What happens in mux mode? | meaning of mux | mux, the mode, what is it?"
         " | What does mux stand for?",
         "Tell me about the mode mux. | Could you explain mux mode?"),
    fact("chunked prefill", "fused is chunked prefill: decode tokens and a prefill chunk in one forward.",
         "What is fused mode? | What does the mode fused do? | Explain fused. | What does fused mean?"
         " | Fused?"
         " | fused is what? | What is fused good for? | How does fused mode mix the phases?"
         " | What happens in fused mode? | meaning of fused | fused, the mode, what is it?"
         " | Which mode is chunked prefill?",
         "Tell me about the mode fused. | Could you explain fused mode?"),
    fact("two prioritised streams", "overlap runs two prioritised streams without a partition.",
         "What is overlap mode? | What does the mode overlap do? | Explain overlap."
         " | What does overlap mean? | Overlap?"
         " | overlap is what? | What is overlap good for? | What happens in overlap mode?"
         " | meaning of overlap | overlap, the mode, what is it? | Which mode has no partition?"
         " | Which mode runs two streams?",
         "Tell me about the mode overlap. | Could you explain overlap mode?"),
    fact("one phase on the whole device", "solo runs one phase on the whole device.",
         "What is solo mode? | What does the mode solo do? | Explain solo. | What does solo mean? | Solo?"
         " | solo is what? | What is solo good for? | What happens in solo mode? | meaning of solo"
         " | solo, the mode, what is it? | Which mode runs one phase alone?"
         " | Which mode takes the whole device?",
         "Tell me about the mode solo. | Could you explain solo mode?"),
    fact("by predicted utility", "auto lets the planner choose the mode by predicted utility.",
         "What is auto mode? | What does the mode auto do? | Explain auto. | What does auto mean? | Auto?"
         " | auto is what? | What is auto good for? | What happens in auto mode? | meaning of auto"
         " | auto, the mode, what is it? | Who chooses the mode? | How is the mode chosen?",
         "Tell me about the mode auto. | Could you explain auto mode?"),
    fact("un-chunked engines", "prefill-first is a baseline: it does what un-chunked engines do.",
         "What is prefill-first? | What does the mode prefill-first do? | Explain prefill-first."
         " | What does prefill-first mean?"
         " | prefill-first? | prefill-first is what? | What happens in prefill-first?"
         " | meaning of prefill-first | prefill-first, what is it?"
         " | Which baseline does what un-chunked engines do? | Why is there prefill-first?",
         "Tell me about the mode prefill-first. | Could you explain prefill-first mode?"),
    fact("by decode batch size", "batch-table is a baseline that looks the split up by decode batch size.",
         "What is batch-table? | What does the mode batch-table do? | Explain batch-table."
         " | What does batch-table mean?"
         " | batch-table? | batch-table is what? | What happens in batch-table? | meaning of batch-table"
         " | batch-table, what is it? | Which baseline looks up the split? | Why is there batch-table?",
         "Tell me about the mode batch-table. | Could you explain batch-table mode?"),
    fact("policy of the paper", "muxwise is a baseline: the policy of the paper.",
         "What is muxwise? | What does the mode muxwise do? | Explain muxwise. | What does muxwise mean?"
         " | muxwise? | muxwise is what? | What happens in muxwise? | meaning of muxwise"
         " | muxwise, what is it? | Which baseline is the paper's policy? | Why is there muxwise?",
         "Tell me about the mode muxwise. | Could you explain muxwise mode?"),
    # Engine
    fact("api and core", "An engine node has two processes: api and core.",
         "Which processes does a node have? | What processes make up an engine node?"
         " | How many processes has a node? | Name the processes of a node."
         " | Processes of a node? | Into which processes is a node divided? | What runs on an engine node?"
         " | What are the two processes? | An engine node runs what? | Which two processes has the engine?"
         " | How many processes are there on a node?",
         "What processes does an engine node have? | Tell me the processes of a node."),
    fact("HTTP, tokenizing and streaming", "The api process does HTTP, tokenizing and streaming.",
         "What does the api process do? | What is the api process for? | Explain the api process."
         " | api process? | What is the job of the api process? | What runs in the api process?"
         " | Which process does the HTTP? | Which process does tokenizing? | The api process is what?"
         " | Where is streaming done?",
         "Tell me what the api process does. | What work is done by the api process?"),
    fact("scheduler, model and KV cache", "The core process holds scheduler, model and KV cache.",
         "What does the core process do? | What is the core process for? | Explain the core process."
         " | What does the core hold?"
         " | core process? | What is the job of the core process? | What runs in the core process?"
         " | Which process has the scheduler? | Where does the model live? | The core process is what?"
         " | Which process holds the KV cache?",
         "Tell me what the core process does. | What work is done by the core process?"),
    fact("cuda, cpu and sim", "There are three devices: cuda, cpu and sim.",
         "Which devices are there? | What devices does the engine support? | List the devices."
         " | Name the three devices."
         " | Devices? | What devices are there? | Enumerate the devices. | Which device types exist?"
         " | Can the engine run on a CPU? | What can the engine run on? | How many devices are there?",
         "What devices can the engine use? | Tell me the devices of the engine."),
    fact("discrete-event clock", "The sim device is a discrete-event clock driven by the latency model.",
         "What is the sim device? | What does the sim device do? | Explain the sim device."
         " | sim device? | The sim device is what? | What is sim good for? | What drives the sim device?"
         " | What clock does the sim device have? | meaning of the sim device"
         " | Which device needs no hardware?",
         "Tell me about the sim device. | Could you explain the device sim?"),
    fact("threads pinned to disjoint cores", "On the cpu device lanes are threads pinned to disjoint cores.",
         "What is the cpu device? | What are lanes on the cpu device? | Explain the cpu device."
         " | cpu device? | The cpu device is what? | What does the cpu device do?"
         " | What is a lane on the cpu device? | How are lanes made on a CPU? | Lanes on a CPU?"
         " | What do lanes look like on the cpu device?",
         "Tell me about the cpu device. | Could you explain the device cpu?"),
    fact("streams of green contexts", "On the cuda device lanes are streams of green contexts.",
         "What is the cuda device? | What are lanes on the cuda device? | Explain the cuda device."
         " | cuda device? | The cuda device is what? | What does the cuda device do?"
         " | What is a lane on the cuda device? | How are lanes made on cuda? | Lanes on cuda?"
         " | Of what are the lanes made on the cuda device?",
         "Tell me about the cuda device. | Could you explain the device cuda?"),
    fact("never block on prefill", "The most valuable mechanism is to never block on prefill.",
         "What is the most valuable mechanism? | Which mechanism matters most?"
         " | What must the loop never do? | What is the most important trick?"
         " | Most valuable mechanism? | Which mechanism is worth most?"
         " | On what must the engine never block? | What is the best trick of Drift?"
         " | What brings the most? | What should one never block on? | Which idea is the most valuable?",
         "Tell me the most valuable mechanism. | Which trick matters most?"),
    fact("layer by layer",
         "Prefill is launched layer by layer, so that a change waits for one layer at most.",
         "How is prefill launched? | In what units is prefill launched? | Why is prefill cut by layers?"
         " | How does the engine launch prefill?"
         " | How does prefill get launched? | Prefill launch? | Why layer by layer?"
         " | What is the unit of a prefill launch? | How long does a change wait for prefill?"
         " | In which steps does prefill run? | How is prefill cut?",
         "Tell me how prefill is launched. | In which pieces is the prefill launched?"),
    fact("one CUDA graph", "Decode is one CUDA graph per partition and batch bucket.",
         "How is decode launched? | What is captured for decode? | Which graph does decode use?"
         " | How does the engine launch decode?"
         " | How does decode get launched? | Decode launch? | How many CUDA graphs are there for decode?"
         " | Is decode a CUDA graph? | What is launched for decode?"
         " | What is there per partition and batch bucket? | How are decode steps launched?",
         "Tell me how decode is launched. | In which form is the decode launched?"),
    fact("by laxity", "Requests are ordered by laxity, with ageing.",
         "How are requests ordered? | In which order are prefills served? | What orders the queue?"
         " | How does the scheduler order requests?"
         " | Order of requests? | Which request goes first? | What decides the order of the queue?"
         " | How is the queue sorted? | By what does the scheduler sort? | Who is served next?"
         " | What is the order of prefills?",
         "Tell me how requests are ordered. | By what are the requests ordered?"),
    fact("at any layer boundary", "Prefill can be preempted at any layer boundary.",
         "When can prefill be preempted? | Where can a prefill be preempted? | How does preemption work?"
         " | At what points is preemption possible?"
         " | Can prefill be preempted? | Is prefill preemptible? | At which boundary is prefill preempted?"
         " | How fine is the preemption? | Preemption of prefill? | Where can prefill be stopped?"
         " | When does the engine preempt a prefill?",
         "Tell me where prefill can be preempted. | When is preemption possible?"),
    fact("smallest decode partition",
         "The planner takes the smallest decode partition that meets the tightest slack.",
         "Which decode partition does the planner take? | How is the decode partition chosen?"
         " | How large is the decode partition?"
         " | How much does the planner give to decode? | What partition does decode get?"
         " | Which partition is taken for decode? | How does the planner choose?"
         " | What does the planner take? | Choice of the decode partition? | What does the planner do?",
         "Tell me how the decode partition is chosen. | What decode partition will the planner choose?"),
    fact("predicts the time of prefill and decode",
         "The latency model predicts the time of prefill and decode per SM count.",
         "What is the latency model? | What does the latency model predict? | Explain the latency model."
         " | What is the latency model for?"
         " | Latency model? | The latency model is what? | What is predicted by the latency model?"
         " | Which model predicts times? | What does the engine predict per SM count?"
         " | Purpose of the latency model? | meaning of latency model",
         "Could you explain the latency model? | Tell me about the latency model."),
    fact("recursive least squares", "The latency model is refined by recursive least squares.",
         "How is the latency model refined? | How does the latency model learn online?"
         " | What refines the latency model?"
         " | Is the latency model trained online? | How does the latency model get better?"
         " | With which method is the latency model updated? | What keeps the latency model up to date?"
         " | How is the latency model fitted? | Which algorithm refines the latency model?"
         " | Refinement of the latency model?",
         "By what is the latency model refined? | Tell me how the latency model learns."),
    fact("contention guard covers", "The contention guard covers the slowdown when both phases run together.",
         "What is the contention guard? | What does the contention guard do?"
         " | Explain the contention guard. | Why is there a contention guard?"
         " | Contention guard? | The contention guard is what? | What does the contention guard cover?"
         " | What is the guard for contention? | meaning of contention guard"
         " | What covers the slowdown of both phases? | What if both phases slow each other down?",
         "Could you explain the contention guard? | Tell me about the contention guard."),
    fact("8 SMs", "On Hopper the smallest partition is 8 SMs.",
         "What is the smallest partition on Hopper? | How many SMs has the smallest group on Hopper?"
         " | How small can a partition be on Hopper?"
         " | Smallest partition on Hopper? | How few SMs can a partition have on Hopper?"
         " | What is the least partition size on Hopper? | Hopper: smallest group of SMs?"
         " | How many SMs at least on Hopper? | Which is the smallest Hopper group?"
         " | Minimum partition on an H100?",
         "Tell me the smallest Hopper partition. | On Hopper, how small is a partition?"),
    fact("CUDA 12.4", "Green contexts need CUDA 12.4 or later.",
         "Which CUDA version do green contexts need? | What CUDA version is required?"
         " | Since which CUDA version are there green contexts?"
         " | Minimum CUDA version? | From which CUDA version on do green contexts work? | CUDA version?"
         " | Which CUDA do I need? | What CUDA must I install for green contexts?"
         " | Do green contexts work with old CUDA? | How new must CUDA be?",
         "What version of CUDA do green contexts need? | Tell me the CUDA version needed."),
    fact("balanced, by count, overlap, fused", "The fall-back ladder is balanced, by count, overlap, fused.",
         "What is the fall-back ladder? | What is the fallback ladder? | Explain the fall-back ladder."
         " | Which fall-backs are there?"
         " | Fall-back ladder? | What are the rungs of the fall-back ladder?"
         " | To what does the engine fall back? | In which order does it fall back?"
         " | Enumerate the fall-backs. | What if green contexts are missing? | fallback ladder",
         "Tell me the fall-back ladder. | Could you explain the fallback ladder?"),
    fact("Llama, Qwen2, Qwen3 and Mistral", "Drift runs Llama, Qwen2, Qwen3 and Mistral models.",
         "Which models does Drift support? | What model families are supported?"
         " | Which models can I serve? | List the supported models."
         " | Supported models? | Can Drift run Llama? | Is Qwen3 supported?"
         " | Does Drift work with Mistral? | Which families of models work?"
         " | What kinds of model can be served? | Which architectures does Drift run?",
         "What models can Drift run? | Tell me the supported model families."),
    fact("radix tree", "The prefix cache is a radix tree over page-aligned token hashes.",
         "How is the prefix cache organised? | What data structure is the prefix cache?"
         " | What is the prefix cache? | Which tree does the cache use?"
         " | Prefix cache? | Structure of the prefix cache? | Which tree is the prefix cache?"
         " | How is the cache of prefixes built? | Over what is the radix tree?"
         " | How does the prefix cache look? | Is the prefix cache a tree?",
         "Tell me how the prefix cache is organised. | What structure has the prefix cache?"),
    fact("bit for bit", "The output is the same whatever the path, bit for bit on CPU.",
         "Is the output identical whatever the path? | Does multiplexing change the output?"
         " | Are results the same in all modes?"
         " | Same output in every mode? | Can the output change with the mode?"
         " | Are the tokens identical in mux and solo? | How exact is the output?"
         " | Is it bit for bit the same? | Do modes give different results?"
         " | Does the split change the answers?",
         "Is the output the same in all modes? | Does the path change the output?"),
    fact("per-tenant salt", "A per-tenant salt at the hash root keeps tenants apart in the cache.",
         "How are tenants kept apart? | What keeps tenants apart?"
         " | How is the cache isolated between tenants?"
         " | Tenants apart? | How does the cache separate tenants? | What is the per-tenant salt?"
         " | Can one tenant see another's cache? | What is the salt for? | How do you isolate tenants?"
         " | Is the cache shared between tenants?",
         "Tell me how tenants are kept apart. | In the cache, what separates tenants?"),
    fact("stored, removed and cleared", "The KV events are stored, removed and cleared.",
         "Which KV events are there? | What are the KV events? | List the KV events. | Name the KV events."
         " | KV events? | Enumerate the KV events. | Which events does the cache send?"
         " | What events come from the KV cache? | How many kinds of KV event are there?"
         " | What does a KV event say? | Which three KV events are there?",
         "What kinds of KV events exist? | Tell me the KV events."),
    fact("only once they are written", "Pages become shareable only once they are written.",
         "When do pages become shareable? | When may a page be shared? | When can a KV page be reused?"
         " | When can I share a page? | Shareable pages? | When is a page ready for sharing?"
         " | Are pages shared before they are written? | When may others reuse a page?"
         " | When will a page be shared? | Is an unwritten page shareable?",
         "Tell me when pages become shareable. | At what moment can pages be shared?"),
    # Router
    fact("picks the node for each request", "The router picks the node for each request.",
         "What does the router do? | What is the router? | Explain the router. | What is the router for?"
         " | Router?"
         " | The router is what? | What is the job of the router? | Who picks the node?"
         " | Which part chooses the node for a request? | meaning of router | Why is there a router?"
         " | What happens in the router?",
         "Tell me about the router. | Could you explain what the router does?"),
    fact("filter, score and pick", "The router works by filter, score and pick.",
         "How does the router choose a node? | What are the steps of routing?"
         " | Which steps does the router take? | How does routing work?"
         " | Routing steps? | How is a node chosen? | Which three steps has routing?"
         " | How does the router decide? | What is the router's method?"
         " | In what order does the router work? | How does the router select?",
         "Tell me how the router chooses. | In what steps does the router pick a node?"),
    fact("chained block hashes", "The prefix index maps chained block hashes to the workers that hold them.",
         "What is the prefix index? | What does the prefix index map? | Explain the prefix index."
         " | How does the prefix index work?"
         " | Prefix index? | The prefix index is what? | Purpose of the prefix index?"
         " | What is in the prefix index? | meaning of prefix index | Which index maps block hashes?"
         " | How does the router know who holds a prefix?",
         "Could you explain the prefix index? | Tell me about the prefix index."),
    fact("EXACT, DEGRADED and FALLBACK", "The index states are EXACT, DEGRADED and FALLBACK.",
         "What are the states of the index? | Which index states are there?"
         " | List the states of the prefix index. | Name the index states."
         " | Index states? | Enumerate the index states. | What states has the prefix index?"
         " | How many states has the index? | Which states can the prefix index take?"
         " | What comes after EXACT? | State of the index?",
         "Tell me the states of the index. | In which states can the index be?"),
    fact("429 with Retry-After", "When all nodes are full the answer is 429 with Retry-After.",
         "What happens when all nodes are full? | Which error comes when there is no headroom?"
         " | What does a full service answer? | When do I get a 429?"
         " | No headroom on any node? | What does Drift say when it is full?"
         " | Which status is sent when everything is full? | When all nodes are busy, what is the answer?"
         " | What does a client get when there is no room? | 429? | Why did I get 429?",
         "What is answered if every node is full? | Tell me what happens when all nodes are full."),
    fact("503", "While loading or draining the answer is 503.",
         "What is answered while loading? | Which status comes while draining?"
         " | What does a loading node answer? | When do I get a 503?"
         " | Answer while loading? | Answer while draining? | Why did I get 503? | 503?"
         " | What does a draining node answer? | Which code is sent while loading?"
         " | If the node is still loading, what do I get?",
         "What is the answer while a node is loading? | Tell me the status while draining."),
    fact("404", "An unknown model is answered with 404.",
         "What happens with an unknown model? | Which status has an unknown model?"
         " | What if the model does not exist? | When do I get a 404?"
         " | Why did I get 404? | 404? | I asked for a model that does not exist."
         " | What does a wrong model name give? | Which code does an unknown model give?"
         " | If the model is unknown, what is answered? | Unknown model?",
         "What status comes for an unknown model? | Tell me what an unknown model gets."),
    fact("400", "An over-long prompt is answered with 400, saying both lengths.",
         "What happens with an over-long prompt? | Which status has a prompt that is too long?"
         " | What if my prompt is too long?"
         " | Why did I get 400? | Prompt too long? | Which code does a too long prompt give?"
         " | If the prompt is over-long, what is answered? | Over-long prompt?"
         " | My prompt exceeds the context, what comes? | What does Drift say to an over-long prompt?"
         " | When do I get a 400?",
         "What status comes for an over-long prompt? | Tell me what a too long prompt gets."),
    fact("resumed on another node", "A broken stream is resumed on another node.",
         "What happens to a broken stream? | What if a node dies during a stream?"
         " | How is a broken stream repaired?"
         " | Broken stream? | A node died in the middle of my answer, what now?"
         " | Will a broken stream go on? | Is a stream lost when its node dies?"
         " | How does a stream survive a dead node? | Where does a broken stream go on?"
         " | What becomes of a stream when the node fails?",
         "Tell me what happens to broken streams. | If a stream breaks, what happens?"),
    fact("circuit breaker", "Each node has a circuit breaker in the router.",
         "What protects the router from a bad node? | What does each node have in the router?"
         " | How are failing nodes avoided?"
         " | Circuit breaker? | How does the router handle bad nodes?"
         " | What shields the router from failing nodes? | What breaks the circuit to a bad node?"
         " | Is there a circuit breaker? | A node keeps failing, what does the router have for that?"
         " | Protection from bad nodes?",
         "What protects against bad nodes? | Tell me how failing nodes are avoided."),
    fact("before the first byte", "The router retries only before the first byte.",
         "When does the router retry? | When are requests retried? | Until when is a retry allowed?"
         " | How does retry work?"
         " | Retry? | May the router retry? | Does the router retry after the first byte?"
         " | How long is a retry allowed? | When is it safe to retry? | Is a started stream retried?"
         " | Retries by the router?",
         "Tell me when the router retries. | At what point is a retry possible?"),
    fact("consistent hashing", "In FALLBACK the router uses consistent hashing with bounded loads.",
         "What does the router use in FALLBACK? | How are requests routed in FALLBACK?"
         " | What happens in the FALLBACK state?"
         " | FALLBACK? | Which hashing is used in FALLBACK? | What does FALLBACK mean?"
         " | How does routing go on in FALLBACK? | How are nodes picked in FALLBACK?"
         " | What if the index is in FALLBACK? | Routing in state FALLBACK?",
         "Tell me what FALLBACK uses. | In FALLBACK, how does the router work?"),
    # Operator
    fact("observe, reconcile and apply", "The operator works in three steps: observe, reconcile and apply.",
         "How does the operator work? | What are the steps of the operator? | What does the operator do?"
         " | Explain the operator. | What is the operator?"
         " | Operator? | The operator is what? | What are the three steps of the operator?"
         " | In which steps does the operator work? | What is the operator's loop? | meaning of operator"
         " | What is the job of the operator?",
         "Tell me how the operator works. | Could you explain the operator's steps?"),
    fact("kopf", "The operator is built on kopf.",
         "Which framework does the operator use? | What is the operator built on?"
         " | Which library is the operator written with?"
         " | Framework of the operator? | What is the operator written with?"
         " | Is the operator built on kopf? | On which library does the operator rest?"
         " | Which operator framework is used? | With what was the operator made? | kopf?",
         "On what framework is the operator built? | Tell me the framework of the operator."),
    fact("keep flowing", "If the operator stops, requests keep flowing: the system is fail-static.",
         "What happens if the operator stops? | What if the operator dies? | What does fail-static mean?"
         " | Do requests need the operator?"
         " | Operator down? | Fail-static? | What does it mean that Drift is fail-static?"
         " | Is service lost when the operator crashes? | What if the operator crashes?"
         " | Can Drift serve without the operator? | Is the operator in the path of requests?",
         "Tell me what happens when the operator is down. | If the operator dies, what happens?"),
    fact("0.70 to 0.85", "The pressure band is 0.70 to 0.85.",
         "What is the pressure band? | In which band is pressure kept?"
         " | Which band does the pressure have? | How high may pressure be?"
         " | Pressure band? | Limits of the pressure? | Where should the pressure be?"
         " | What pressure does the operator aim at? | In which range is pressure held?"
         " | Which pressure is normal? | What are the bounds of the pressure band?",
         "Tell me the band of the pressure. | Between which values is pressure kept?"),
    fact("never taken as zero", "Unknown metrics hold the last state; they are never taken as zero.",
         "How are unknown metrics treated? | What happens when metrics are unknown?"
         " | What if metrics are missing?"
         " | Unknown metrics? | Metrics missing? | Are missing metrics zero?"
         " | What does the operator do without metrics? | Is an unknown metric taken as zero?"
         " | No metrics arrive, what now? | What holds when a metric is unknown?",
         "Tell me how unknown metrics are treated. | If metrics are missing, what happens?"),
    fact("drift_slo_pressure", "The HPA metric is drift_slo_pressure with a target of 1.",
         "Which metric does the HPA use? | What is the HPA metric?"
         " | Which metric scales the service with HPA? | What is drift_slo_pressure?"
         " | HPA metric? | On which metric does the HPA scale? | What should the HPA watch?"
         " | Which metric is exported for scaling? | What target has the HPA metric?"
         " | By which metric is the service scaled? | Name of the metric for HPA?",
         "Tell me the metric for the HPA. | What metric is used by HPA?"),
    fact("drained in two phases", "Before it is deleted a node is drained in two phases.",
         "How is a node drained? | What happens before a node is deleted? | How does draining work?"
         " | Explain drain."
         " | Drain? | How do you drain a node? | What are the phases of draining?"
         " | In how many phases is a node drained? | How is a node taken away?"
         " | What comes before deleting a node? | meaning of drain",
         "Tell me how draining works. | In what way is a node drained?"),
    fact("per-component least RBAC",
         "Security means restricted pods, per-component least RBAC and network policies.",
         "How is Drift secured? | What about security? | Which security measures are there?"
         " | Explain the security of Drift."
         " | Security? | Is Drift secure? | What is done for security?"
         " | Which rights do the components have? | Are there network policies?"
         " | How are the pods secured? | What about RBAC?",
         "Tell me about security. | What security measures does Drift take?"),
    # Disaggregation, simulator, evidence
    fact("DOPD", "Disaggregation follows DOPD: prefill and decode run on different nodes.",
         "What is disaggregation? | How does disaggregation work? | Explain disaggregation."
         " | What is the other operating mode?"
         " | Disaggregation? | Disaggregation is what? | Can prefill and decode run on different nodes?"
         " | meaning of disaggregation | What happens with disaggregation on?"
         " | When are prefill and decode apart? | What is disaggregated serving?",
         "Could you explain disaggregation? | Tell me about disaggregation."),
    fact("sizes prefill and decode roles", "DOPD sizes prefill and decode roles from the traffic.",
         "What is DOPD? | What does DOPD do? | Explain DOPD. | DOPD?"
         " | DOPD is what? | meaning of DOPD | What is sized by DOPD? | Which policy sizes the roles?"
         " | How are the roles sized? | What is DOPD for? | Who decides how many prefill nodes there are?",
         "Could you explain DOPD? | Tell me about DOPD."),
    fact("takes a second and no restart", "A role flip takes a second and no restart.",
         "How long does a role flip take? | How fast can a node change its role?"
         " | Does changing a role need a restart?"
         " | Role flip? | How long to change a role? | Must a node restart to flip its role?"
         " | Time of a role flip? | How quickly are roles flipped? | What does a role flip cost?"
         " | Does a node restart when its role flips?",
         "Tell me how long a role flip takes. | Is a restart needed for a role flip?"),
    fact("layer by layer over shared memory or TCP", "KV is pushed layer by layer over shared memory or TCP.",
         "How is KV pushed? | How does KV get to the decode node? | How is the KV cache transferred?"
         " | What moves KV between nodes?"
         " | KV transfer? | How does KV travel between nodes? | In what way does KV move?"
         " | Over what is KV pushed? | Is KV sent over TCP? | How is the KV sent?"
         " | By what means is KV moved? | Transfer of KV?",
         "Tell me how KV is transferred. | In what way is KV pushed to a decode node?"),
    fact("what if", "The simulator answers what if: another split policy, or one node fewer.",
         "What is the simulator? | What does the simulator answer? | What is the simulator for?"
         " | Explain the simulator."
         " | Simulator? | The simulator is what? | What questions can the simulator answer?"
         " | Why is there a simulator? | meaning of simulator | What is simulated?"
         " | What can I ask the simulator?",
         "Could you explain the simulator? | Tell me about the simulator."),
    fact("2.20x", "The paper reports 2.20x mean goodput.",
         "What gain does the paper report? | How much better is the paper's goodput?"
         " | What is the mean gain in the paper?"
         " | Gain in the paper? | Which speed-up does the paper claim?"
         " | How much goodput does the paper gain? | What is the paper's result? | Result of the paper?"
         " | What factor is in the paper? | What does the paper report?",
         "Tell me the gain reported by the paper. | How large is the paper's mean gain?"),
    fact("arXiv 2504.14489", "The Drift paper is arXiv 2504.14489.",
         "Which paper is Drift based on? | What is the arXiv number of the Drift paper?"
         " | Where is the paper? | Which paper describes PD multiplexing?"
         " | Paper? | The paper's number? | Which arXiv number? | Is there a paper? | Link to the paper?"
         " | What paper should I cite? | What is the paper behind this?",
         "Tell me the arXiv number of the paper. | On which paper is Drift based?"),
    fact("said to be unmeasured", "What has not been measured is said to be unmeasured.",
         "What about claims that were not measured? | How are unmeasured things treated?"
         " | What is said of things not measured?"
         " | Unmeasured? | What do you say when something was not measured?"
         " | And what has not been measured? | Are there claims without a measurement?"
         " | What about unmeasured numbers? | How honest are the numbers?"
         " | Do you claim things not measured?",
         "Tell me how unmeasured claims are treated. | If something was not measured, what is said?"),
    # The model itself
    fact("Qwen3", "drift-tiny is a Qwen3-shaped model.",
         "What is the architecture of drift-tiny? | Which shape does drift-tiny have?"
         " | What kind of model is drift-tiny? | What architecture are you?"
         " | Architecture? | Shape of drift-tiny? | Is drift-tiny a Qwen3 model?"
         " | What model type is drift-tiny? | On which architecture is drift-tiny built?"
         " | Which family does drift-tiny belong to? | What sort of network is drift-tiny?",
         "Which architecture has drift-tiny? | Tell me the architecture of drift-tiny."),
    fact("2.6 million", "drift-tiny has 2.6 million parameters.",
         "How many parameters does drift-tiny have? | How large is drift-tiny? | How big are you?"
         " | How many parameters do you have?"
         " | Size of drift-tiny? | Number of parameters? | How many weights does drift-tiny have?"
         " | How small are you? | How many million parameters? | Parameters of drift-tiny?"
         " | How small is drift-tiny?",
         "What is the number of parameters of drift-tiny? | Tell me how big drift-tiny is."),
    fact("on a CPU", "drift-tiny was trained on a CPU by a script in the repository.",
         "How was drift-tiny trained? | Where was drift-tiny trained? | On what were you trained?"
         " | Who trained drift-tiny?"
         " | How were you trained? | Training of drift-tiny? | Was drift-tiny trained on a GPU?"
         " | With what was drift-tiny trained? | Where do your weights come from?"
         " | Which machine trained drift-tiny? | What was drift-tiny trained on?",
         "Tell me how drift-tiny was trained. | On which hardware was drift-tiny trained?"),
    fact("32768", "The context of drift-tiny is 32768 tokens.",
         "What is the context length of drift-tiny? | How long is your context?"
         " | How many tokens can drift-tiny read? | What is your context length?"
         " | Context length? | Context of drift-tiny? | How much text fits into drift-tiny?"
         " | How many tokens fit into your context? | What is the longest prompt for drift-tiny?"
         " | How many tokens can you read? | Maximum context?",
         "Tell me the context length of drift-tiny. | How long can the context of drift-tiny be?"),
)  # fmt: skip

SMALL_TALK = (
    fact("drift-tiny", "I am drift-tiny, the small model embedded in Drift.",
         "Who are you? | What are you? | What is your name? | Introduce yourself."
         " | Tell me about yourself. | Who am I talking to? | Are you a bot? | Who is this? | What are you called?"
         " | Say who you are. | Which model are you? | Your name? | Do you have a name? | Are you a human?"
         " | Who answers me?",
         "May I ask who you are? | What should I call you?"),
    fact("Hello", "Hello! Ask me about Drift, or give me something to copy, compute or remember.",
         "Hello | Hi | Hey | Hello! | Hi! | Hey there | Good morning | Good evening | Hello there!"
         " | Greetings | Good day | Hey! | Hello you | Hello, model | A good evening to you | Good morning!"
         " | Hello, how nice",
         "Hi there! | Good afternoon"),
    fact("copy text",
         "I can answer questions about Drift, copy text, do small sums and recall what you told me.",
         "What can you do? | How can you help me? | What are your skills? | Help | What do you know?"
         " | What are you able to do? | Can you help me? | What are you good at? | In what can you help?"
         " | Which things can you do? | Show me what you can do. | What may I ask you? | I need help",
         "What are the things you can do? | How could you help me?"),
    fact("You are welcome", "You are welcome!",
         "Thanks | Thank you | Thank you! | Thanks a lot | Many thanks | Thx | Thank you very much"
         " | Thanks for your help | Thank you for the answer | Great, thanks | Cheers | That helped, thank you",
         "Thanks so much | I thank you"),
    fact("Goodbye", "Goodbye!",
         "Bye | Goodbye | See you | Bye! | See you later | Good night | Bye bye | I have to go | Farewell"
         " | Until next time | See you tomorrow | That is all, bye",
         "Bye for now | See you soon"),
    fact("ready", "I am fine and ready to help.",
         "How are you? | How are you doing? | How do you do? | Are you OK? | How is it going? | Are you fine?"
         " | How do you feel? | Is everything all right with you? | Everything fine? | You OK?"
         " | Do you feel well?",
         "How are you today? | Are you well?"),
    fact("as an example",
         "I was made as an example: small enough to run anywhere, with answers that can be checked.",
         "Why were you made? | What are you for? | Why do you exist? | What is your purpose?"
         " | Why are you so small? | To what end were you made? | Why does drift-tiny exist?"
         " | What was drift-tiny made for? | Why do we have drift-tiny? | What is drift-tiny for?"
         " | What good are you?",
         "For what purpose were you made? | Why is there a drift-tiny?"),
    fact("only English", "I speak only English, and only a little.",
         "Which languages do you speak? | Do you speak German? | Do you speak French?"
         " | What languages do you know? | Can you speak Spanish? | Do you know German? | Do you know Italian?"
         " | Is English your only language? | Which languages can I use? | Can I write in French?"
         " | Do you understand Chinese? | In which language may I ask?",
         "What languages can you speak? | Do you know French?"),
    fact("OK", "OK.",
         "OK | Okay | Good | Fine | All right | Great | Nice | OK, fine | OK then | Perfect | I see",
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
    "About Drift: ", "Well, ", "OK. ", "Please: ", "So, ", "I am curious: ", "Just checking: ",
    "Good morning. ", "Thanks. Next: ", "Maybe you know: ", "Let me ask: ", "And ", "Hm, ", "I was asked: ",
)  # fmt: skip
EXTRAS = words.listed(
    """exactly really actually then now please again here the a of in about is do you me it would"""
)
CLOSINGS = (
    " Please.", " In short.", " Thanks!", " I am new to this.", " Keep it short.", " One sentence is enough.",
    " I forgot.", " Just curious.", " Any idea?", " Please be brief.", " I could not find it.",
)  # fmt: skip
FRAMES = (
    "Describe {}.", "What can you say about {}?", "Give me a definition of {}.",
    "{}: what is that?", "What about {}?", "I would like to understand {}.",
    "Please explain {} to me.", "How would you describe {}?", "Say what {} is.",
    "Help me understand {}.", "I do not understand {}.", "What should I know about {}?",
    "In one sentence, {}?", "{}, what is it?", "What is {} about?", "I need to know what {} is.",
    "Who can explain {}?", "Teach me {}.", "Talk about {}.", "{} please", "I read of {}. What is it?",
    "How does one explain {}?", "Clarify {}.", "{} in short?", "Remind me of {}.", "What have I to know of {}?",
)  # fmt: skip
"""Further wordings for every fact that has an "Explain ..." among its questions; none of them is held out."""

INDIRECT = (
    "I would like to know {}.", "Do you know {}?", "I forgot {}.", "Remind me {}.", "I want to know {}.",
    "Can you say {}?", "Let me know {}.", "I am not sure {}.", "Any idea {}?", "Nobody told me {}.",
    "I have to find out {}.", "Would you say {}?", "It is not clear to me {}.",
)  # fmt: skip
"""Frames for the questions that `indirect` can turn round."""

CONTRACTIONS = (
    ("What is ", ("What's ", "Whats ")), ("How is ", ("How's ",)), ("Where is ", ("Where's ",)),
    ("I want to ", ("I'd like to ",)), ("I would ", ("I'd ",)), ("do not ", ("don't ",)),
    ("Do I need ", ("Is there need for ",)), ("How do I ", ("How can I ", "How would I ", "How to ")),
    ("What are ", ("What're ",)), ("Which ", ("What ",)), ("what is ", ("what's ",)), (" does ", (" will ",)),
)  # fmt: skip

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
        elif rng.random() < 0.15:
            text = indirect(rng, text)
        for long, short in CONTRACTIONS:
            if long in text and rng.random() < 0.2:
                text = text.replace(long, rng.choice(short), 1)
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


def indirect(rng: random.Random, question: str) -> str:
    """A question as a part of a sentence ("Do you know what TTFT means?"), if its form is a simple one."""
    body = question.rstrip("?")
    if found := re.fullmatch(r"(What|How|When|Where|Who) (is|are|was) ((?:the|a|an|your) .*[^d]|\S+)", body):
        start, verb, subject = found.groups()
        clause = f"{start.lower()} {subject} {verb}"
    elif found := re.fullmatch(r"(What|How|When|Where) does (.+) (mean|do|work|keep|say|decide|show)", body):
        start, subject, verb = found.groups()
        clause = f"{start.lower()} {subject} {verb}{'es' if verb == 'do' else 's'}"
    elif found := re.fullmatch(r"(What|How|When|Where|Which \w+) (?:do|can) I (.+)", body):
        clause = f"{found[1].lower()} to {found[2]}"
    elif found := re.fullmatch(r"(?:Does|Do|Is|Are|Can|Will|Must) .+", body):
        return f"{rng.choice(('Tell: ', 'Yes or no: ', 'I ask myself: '))}{body[0].lower()}{body[1:]}?"
    else:
        return question
    return rng.choice(INDIRECT).format(clause)


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
"""One more wording for every third fact, written when the practice of the time was over. No wrong answer to them was
used when practice was added later, but those who added it could see the list."""

FRESH_TOO = (
    "What means does Drift have for holding what it promised?",
    "Of all levers, which reacts with the longest delay?",
    "There is a lever for replicas, what does it control?",
    "Am I allowed to use drift-tiny commercially, what is its licence?",
    "Remind me what TBT is short for.",
    "How would you explain prefill to a beginner?",
    "The log counts reused tokens, what does that say?",
    "I never heard of green contexts, what would that be?",
    "When a node is said to have headroom, what is meant?",
    "I only have one machine, how do I bring Drift up on it?",
    "What is the helm line for putting Drift on my cluster?",
    "If I type drift up, what will happen?",
    "What will I see when I type drift top?",
    "What sort of object is a DriftService?",
    "I did not set a TTFT target, which one do I get?",
    "Why would I want to set perTokenMs?",
    "Which values does the autoscaling mode take?",
    "Does the status tell me what was decided lately?",
    "How does the engine work when it is in mux mode?",
    "What is solo mode meant for?",
    "I found a mode named batch-table, what is it?",
    "Which jobs fall to the api process?",
    "Can I run without hardware on the sim device, what is it?",
    "Which single mechanism of Drift is the most valuable one?",
    "In what sequence does the scheduler take requests?",
    "What do you use the latency model for?",
    "What is the minimum number of SMs in a Hopper partition?",
    "Would my Mistral model be supported?",
    "Two tenants share a node, how is their cache kept apart?",
    "What is the router there for?",
    "I saw that the index was DEGRADED, which states does it have?",
    "I misspelt the model name, which status will I see?",
    "How does the router stay away from a node that keeps failing?",
    "What is the operator doing step by step?",
    "Which pressure band does the operator hold?",
    "What takes place when a node drains?",
    "What is the role of DOPD?",
    "What kind of question is the simulator good for?",
    "How do you report a number nobody measured?",
    "On what machine did the training of drift-tiny run?",
)
"""The same for the facts after those, written while the shipped weights were still being trained, when the practice
of facts was already fixed, before any answer was seen, and put to them once."""

HELD_OUT = frozenset(
    [normal(question) for item in (*FACTS, *SMALL_TALK) for question in item.held_out]
    + [normal(question) for question in (*FRESH, *FRESH_TOO)]
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
    """The first list of freely worded questions."""
    return asked(FRESH, FACTS[::3])


def fresh_too() -> list[Sample]:
    """The second list of freely worded questions."""
    return asked(FRESH_TOO, FACTS[1::3])


def asked(questions: tuple[str, ...], items: tuple[Fact, ...]) -> list[Sample]:
    """One question for each fact."""
    return [
        Sample("facts", (Turn("user", question), Turn("assistant", item.answer)), item.expected)
        for question, item in zip(questions, items, strict=True)
    ]


def held_out(items: tuple[Fact, ...], kind: str) -> list[Sample]:
    """Every held-out question of these facts."""
    return [
        Sample(kind, (Turn("user", question), Turn("assistant", item.answer)), item.expected)
        for item in items
        for question in item.held_out
    ]

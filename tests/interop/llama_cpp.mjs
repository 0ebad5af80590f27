// llama.cpp behind node-llama-cpp, one JSON request a line on stdin, one JSON answer a line on stdout.
// `node llama_cpp.mjs FOLDER`: node-llama-cpp is installed in FOLDER/node_modules.
import {createInterface} from "node:readline";
import {pathToFileURL} from "node:url";

const library = `${process.argv[2]}/node_modules/node-llama-cpp/dist/index.js`;
const {getLlama} = await import(pathToFileURL(library).href);
let log = [];
const llama = await getLlama({
    gpu: false, build: "never", skipDownload: true, maxThreads: 2, logLevel: "warn",
    logger: (level, message) => log.push(message.trim())
});
let model, context, sequence;

const requests = {
    async open({path}) {
        await model?.dispose();
        log = [];
        model = await llama.loadModel({modelPath: path, useMmap: false, checkTensors: true});
        context = await model.createContext({contextSize: model.trainContextSize, flashAttention: false});
        sequence = context.getSequence();
        const {bos, eos, shouldPrependBosToken} = model.tokens;
        return {bos, eos, add_bos: shouldPrependBosToken, context: context.contextSize, log};
    },
    tokenize: ({text, special}) => model.tokenize(text, special),
    detokenize: ({tokens}) => model.detokenize(tokens),
    async logits({tokens, last}) {  // of every token, or of the last one alone
        await sequence.clearHistory();
        const wanted = {generateNext: {logits: true, options: {temperature: 0}}};
        const input = tokens.map((token, i) => last && i + 1 < tokens.length ? token : [token, wanted]);
        const outputs = await sequence.controlledEvaluate(input);
        const rows = outputs.filter((output) => output?.next?.logits);
        return rows.map(({next}) => {
            const row = [];
            for (const [token, logit] of next.logits)
                row[token] = logit;
            return row;
        });
    },
    async greedy({tokens, count}) {
        await sequence.clearHistory();
        const generated = [];
        for await (const token of sequence.evaluate(tokens, {temperature: 0, yieldEogToken: true})) {
            generated.push(token);
            if (generated.length === count) break;
        }
        return generated;
    }
};

for await (const line of createInterface({input: process.stdin})) {
    let answer;
    try {
        const {request, ...options} = JSON.parse(line);
        answer = {result: await requests[request](options)};
    } catch (error) {
        answer = {error: [error.message, ...log].join("; ")};
    }
    console.log(JSON.stringify(answer));
}
process.exit(0);

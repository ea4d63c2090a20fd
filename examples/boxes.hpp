// Turn the outputs of a network of kind `raw` into detections, for the C++ programs in this folder.
// The code does not apply `nms_pre`, the maximum number of candidates from each level. With a
// `score_thr` of 0.02 or more, a level rarely has more candidates.
#pragma once
#include <algorithm>
#include <cstddef>
#include <vector>

struct Box {
    float x1, y1, x2, y2;  // in pixels of the network's input
    float score;
    size_t label;
    float area() const { return (x2 - x1) * (y2 - y1); }
};

struct Postprocess {  // "postprocess" in mixdet.json
    float score_thr;
    float iou_thr;
    size_t max_per_img;
};

inline bool overlaps(const Box& a, const Box& b, float iou_thr) {
    const float width = std::min(a.x2, b.x2) - std::max(a.x1, b.x1);
    const float height = std::min(a.y2, b.y2) - std::max(a.y1, b.y1);
    if (width <= 0 || height <= 0) return false;
    const float intersection = width * height;
    return intersection > iou_thr * (a.area() + b.area() - intersection);
}

// Returns the detections, best first. boxes: anchors x 4; scores: anchors x classes.
inline std::vector<Box> decode(const float* boxes, const float* scores, size_t anchors,
                               size_t classes, const Postprocess& postprocess) {
    std::vector<Box> candidates, detections;
    for (size_t index = 0; index < anchors * classes; ++index) {
        const float* b = boxes + 4 * (index / classes);
        const Box box{b[0], b[1], b[2], b[3], scores[index], index % classes};
        if (box.score > postprocess.score_thr && box.area() > 0) candidates.push_back(box);
    }
    std::sort(candidates.begin(), candidates.end(),
              [](const Box& a, const Box& b) { return a.score > b.score; });
    for (const Box& box : candidates) {
        if (detections.size() == postprocess.max_per_img) break;
        const auto suppresses = [&](const Box& better) {
            return better.label == box.label && overlaps(better, box, postprocess.iou_thr);
        };
        if (std::none_of(detections.begin(), detections.end(), suppresses))
            detections.push_back(box);
    }
    return detections;
}
